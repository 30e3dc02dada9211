"""What keeps schemathesis' requests quick, harmless and to the point.

Values that were generated to be wrong stay as they are: the daemon has to refuse them. Of those
that are right, references are made to lead to real containers, waits are made short, and nothing
of the machine but the containers of this run is touched.
"""

import io
import itertools
import os
import tarfile

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation

BASE = os.environ["LITTLEBOX_BASE"]
ROOT = os.environ["LITTLEBOX_ROOT"]
http = requests.Session()
counter = itertools.count()


# ---- containers to work on ----------------------------------------------------------------------


def sleeper(name, **more):
    return {
        "name": name,
        "rootfs": f"dir:{ROOT}",
        "command": ["sleep", "100000"],
        "stop_timeout_s": 0,
        **more,
    }


FIXTURES = {
    "st-running": sleeper("st-running", stdin=True),
    "st-terminal": sleeper("st-terminal", terminal=True),
    "st-idle": sleeper("st-idle"),
}


def ensure(name):
    """The container is there, and runs unless it is the idle one."""
    found = http.get(f"{BASE}/v1/containers/{name}", timeout=20)
    if found.status_code == 200:
        state = found.json()["state"]
        if name == "st-idle" or state == "running":
            return name
        http.delete(f"{BASE}/v1/containers/{name}?force=true&wait=20s", timeout=30)
    start = "false" if name == "st-idle" else "true"
    made = http.post(f"{BASE}/v1/containers?start={start}", json=FIXTURES[name], timeout=30)
    # Another worker may have been quicker.
    assert made.status_code in (201, 409), made.text
    return name


def finished_exec():
    """An exec that has ended, in the running container."""
    container = ensure("st-running")
    listed = http.get(f"{BASE}/v1/containers/{container}/execs?limit=1", timeout=20).json()
    if listed["items"]:
        return listed["items"][0]["id"]
    made = http.post(
        f"{BASE}/v1/containers/{container}/execs?wait=10s",
        json={"command": ["echo", "hello"]},
        timeout=30,
    )
    assert made.status_code == 201, made.text
    return made.json()["id"]


# ---- archives -----------------------------------------------------------------------------------


def archive(names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return out.getvalue()


NAMES = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True)
ARCHIVES = st.dictionaries(NAMES, st.binary(max_size=64), max_size=4).map(archive)
schemathesis.openapi.media_type("application/x-tar", ARCHIVES)


@schemathesis.serializer("application/x-tar")
def serialize_archive(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()


# ---- requests -----------------------------------------------------------------------------------


def right(case, location):
    return case.meta is None or not case.meta.is_negative_at(location)


@schemathesis.hook
def before_call(ctx, case, kwargs):
    if right(case, ParameterLocation.PATH):
        lead_somewhere(case)
    if right(case, ParameterLocation.QUERY):
        shorten(case)
    if case.method == "POST" and case.operation.path == "/v1/containers":
        tame_creation(case)
    elif right(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        tame_body(case)


def lead_somewhere(case):
    """Two of three references are made to exist."""
    n = next(counter)
    parameters = case.path_parameters or {}
    if n % 3 == 0:
        return
    if "c" in parameters:
        idle = n % 7 == 0 or case.operation.path.endswith("/start")
        terminal = case.operation.path.endswith("/resize")
        name = "st-idle" if idle else "st-terminal" if terminal else "st-running"
        case.path_parameters["c"] = ensure(name)
    if "e" in parameters:
        case.path_parameters["e"] = finished_exec()
    if "inode" in parameters and n % 2:
        case.path_parameters["type"] = "net"
        case.path_parameters["inode"] = os.stat("/proc/self/ns/net").st_ino


WAITS = ["0", "50ms", "0.1s", ".1"]


def shorten(case):
    """No wait is long, no stream without an end, no reference of a query without a chance."""
    path, query = case.operation.path, case.query
    n = next(counter)
    if path.endswith("/wait"):
        query["timeout"] = WAITS[n % 4]
    elif "wait" in query:
        query["wait"] = WAITS[n % 4]
    if path in ("/v1/events", "/v1/containers/{c}/logs", "/v1/execs/{e}/output"):
        query["follow"] = "false"
    if path.endswith("/stats"):
        query["stream"] = "false"
    if path.endswith("/files") and n % 3:
        query["path"] = ["/etc/passwd", "/tmp", "/bin/sh"][n % 3]
    if path.endswith("/diff") and n % 3:
        query["a"], query["b"] = ensure("st-running"), "host"


def tame_creation(case):
    """A container that is wrong in something is not started; one that is right is harmless."""
    if not right(case, ParameterLocation.BODY) or not isinstance(case.body, dict):
        if right(case, ParameterLocation.QUERY):
            case.query.pop("wait", None)
            case.query["start"] = "false"
        return
    body, n = case.body, next(counter)
    body["rootfs"] = f"dir:{ROOT}" if n % 4 else "host"
    for key in ("privileged", "oom_score_adj", "sysctls", "propagation"):
        body.pop(key, None)
    if n % 3:
        # Most profiles keep a program from running.
        body.pop("seccomp", None)
    if "mounts" in body:
        body["mounts"] = [m for m in body["mounts"] if m.get("type") == "tmpfs"]
    if "namespaces" in body:
        own = {kind: "new" for kind in body["namespaces"]}
        body["namespaces"] = own
    if n % 3:
        body["command"] = ["echo", "hello"]
    body["stop_timeout_s"] = 0


def tame_body(case):
    path, body = case.operation.path, case.body
    if path.endswith("/execs"):
        body.pop("privileged", None)
        if next(counter) % 3:
            body["command"] = ["echo", "hello"]
        body["timeout_ms"] = 2000
    if path.endswith(("/stop", "/restart")):
        body["timeout_s"] = 0
    if path.endswith("}") and case.method == "PATCH" and case.path_parameters.get("c", "").startswith("st-"):
        # The containers to work on keep their names.
        body.pop("name", None)
