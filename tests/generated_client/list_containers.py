"""Works with a daemon through the generated client: `list_containers.py SOCKET`."""

import sys
from http import HTTPStatus

import httpx

from littlebox_client import Client
from littlebox_client.api.containers import (
    create_container,
    inspect_container,
    list_containers,
    remove_container,
)
from littlebox_client.api.execs import create_exec
from littlebox_client.api.system import get_version
from littlebox_client.models import (
    Container,
    ContainerConfig,
    ContainerPage,
    ContainerState,
    ContainerSummary,
    Exec,
    ExecConfig,
    ExitExited,
    Problem,
    ProblemCode,
    VersionInfo,
)
from littlebox_client.types import Unset


def main() -> None:
    transport = httpx.HTTPTransport(uds=sys.argv[1])
    client = Client(
        base_url="http://localhost", httpx_args={"transport": transport}, timeout=httpx.Timeout(30)
    )

    version = get_version.sync(client=client)
    assert isinstance(version, VersionInfo), version
    print(f"littlebox {version.version}, Linux {version.kernel}")

    config = ContainerConfig(rootfs="host", command=["sleep", "1000"], name="generated")
    made = create_container.sync(client=client, body=config, start=True)
    assert isinstance(made, Container), made
    assert made.state == ContainerState.RUNNING, made

    page = list_containers.sync(client=client, filter_=["state=running"])
    assert isinstance(page, ContainerPage), page
    for item in page.items:
        assert isinstance(item, ContainerSummary), item
        print(item.id, item.name, item.state, " ".join(item.command), item.created_at.isoformat())
    assert [item.name for item in page.items] == ["generated"]

    done = create_exec.sync(
        "generated", client=client, body=ExecConfig(command=["echo", "hello"]), wait="20s"
    )
    assert isinstance(done, Exec), done
    assert isinstance(done.exit_, ExitExited) and done.exit_.code == 0, done
    assert not isinstance(done.output, Unset) and done.output.stdout == "hello\n", done

    removed = remove_container.sync_detailed("generated", client=client, force=True)
    assert removed.status_code == HTTPStatus.NO_CONTENT, removed

    missing = inspect_container.sync("generated", client=client)
    assert isinstance(missing, Problem), missing
    assert missing.code == ProblemCode.CONTAINER_NOT_FOUND, missing
    print(f"{missing.status} {missing.code}: {missing.detail}")


main()
