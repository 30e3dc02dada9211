//! Hosts whose cgroup tree is not simply there: read-only, missing, nested. Each in mount and cgroup
//! namespaces of the daemon's own.

use std::path::{Path, PathBuf};

use littlebox_tests::prelude::*;

/// Binds every cgroup mount over itself, read-only.
const READ_ONLY: &str = r#"
awk '$0 ~ / - cgroup2? / { print $5 }' /proc/self/mountinfo | while read -r mount; do
    mount --bind "$mount" "$mount"
    mount -o remount,bind,ro "$mount"
done
exec "$@""#;

const MISSING: &str = r#"
umount -l /sys/fs/cgroup
exec "$@""#;

/// A tree below `$NEST` of the hierarchies that a container uses, seen from there as the whole.
const NESTED: &str = r#"
mounts=$(awk '$0 ~ / - cgroup2 / || $0 ~ / - cgroup .*[ ,](memory|pids|cpuacct|devices)(,|$)/ {
    print $5 }' /proc/self/mountinfo)
for mount in $mounts; do
    # On a fresh hybrid host nobody has handed the controller down yet that the test asks for.
    if [ -e "$mount/cgroup.subtree_control" ]; then
        echo +hugetlb > "$mount/cgroup.subtree_control" || true
    fi
    mkdir "$mount/$NEST"
    echo $$ > "$mount/$NEST/cgroup.procs"
done
exec unshare --cgroup --mount sh -euc '
list=$(awk "\$0 ~ / - cgroup2? / { n = split(\$0, a, \" - \"); print \$5, a[2] }" /proc/self/mountinfo)
echo "$list" | while read -r mount type source options; do
    [ -d "$mount" ] || continue
    echo "$mount $type $options"
done > /tmp/nest.$$
mount -t tmpfs none /sys/fs/cgroup
while read -r mount type options; do
    case $type,$options in
        cgroup2,*) [ "$mount" = /sys/fs/cgroup ] || mkdir -p "$mount"
            mount -t cgroup2 none "$mount" ;;
        cgroup,*memory*|cgroup,*pids*|cgroup,*cpuacct*|cgroup,*devices*)
            mkdir -p "$mount"
            mount -t cgroup -o "${options#rw,}" none "$mount" ;;
    esac
done < /tmp/nest.$$
rm /tmp/nest.$$
exec "$@"' sh "$@""#;

fn limited() -> Value {
    json!({"resources": {"memory": 67_108_864}})
}

/// Without limits it runs, and says what it lacks; with one it does not, and says why and what to do.
fn refuses_limits_and_runs_without(script: &str, word: &str) {
    let t = Bed::builder()
        .unshared(&["--mount", "--propagation", "private"], script)
        .build();
    let c = t.sleeper();
    assert!(c.cgroups.is_empty(), "{c:?}");
    let warning = c.warnings.join("\n");
    assert!(
        warning.contains("no control group") && warning.contains(word),
        "{warning}"
    );
    assert_eq!(t.exec(&id(&c), &["echo", "works"]), "works\n");
    let problem = t
        .post_json(
            "/v1/containers?start=true",
            &with(sleeper_config(), limited()),
        )
        .problem(422, "start_failed");
    assert_eq!(problem.step.as_deref(), Some("cgroup"), "{problem:?}");
    assert!(problem.detail.contains(word), "{problem:?}");
    let patch = Request::new(Method::Patch, format!("/v1/containers/{}", id(&c)));
    let _refused = t
        .send(&patch.json(&limited()))
        .problem(422, "update_failed");
    let pause = t.post(&format!("/v1/containers/{}/pause", id(&c)));
    let problem = pause.problem(422, "pause_failed");
    assert!(problem.detail.contains("no control group"), "{problem:?}");
    assert_eq!(t.inspect(&id(&c)).summary.state, ContainerState::Running);
    t.remove(&id(&c));
    t.finish();
}

#[test]
fn a_read_only_tree_is_a_clear_error_for_limits_and_a_warning_without() {
    refuses_limits_and_runs_without(READ_ONLY, "read-only");
}

#[test]
fn a_missing_tree_is_a_clear_error_for_limits_and_a_warning_without() {
    refuses_limits_and_runs_without(MISSING, "mount");
}

#[test]
fn who_may_make_devices_needs_the_filter() {
    let t = Bed::builder()
        .unshared(&["--mount", "--propagation", "private"], READ_ONLY)
        .build();
    let config = with(
        sleeper_config(),
        json!({"capabilities": {"add": ["MKNOD"]}}),
    );
    let problem = t
        .post_json("/v1/containers?start=true", &config)
        .problem(422, "start_failed");
    assert_eq!(problem.step.as_deref(), Some("cgroup"), "{problem:?}");
    t.finish();
}

/// Directories that the nested daemon made below the test's own; they go from below, also when the
/// test has failed.
struct Nest(String);

impl Drop for Nest {
    fn drop(&mut self) {
        remove_nest(&self.0);
    }
}

fn remove_nest(name: &str) {
    fn remove(dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove(&entry.path());
            }
        }
        // Busy until the last of the daemon's processes has ended, which it does not wait for.
        proc::until("the cgroup is empty", || std::fs::remove_dir(dir).is_ok());
    }
    let mounts = littlebox_tests::oracle::cgroup_mounts();
    let nests: Vec<PathBuf> = mounts.iter().map(|m| m.join(name)).collect();
    nests.iter().filter(|n| n.is_dir()).for_each(|n| remove(n));
}

#[test]
fn in_a_nested_cgroup_containers_live_below_the_daemons_own_root() {
    let name = format!("lbt-nest-{}", std::process::id());
    // Dropped after the bed, which ends the daemon.
    let nest = Nest(name.clone());
    let mut t = Bed::builder()
        .env("NEST", &name)
        .unshared(&[], NESTED)
        .build();
    let c = t.sleeper();
    assert!(!c.cgroups.is_empty(), "{:?}", c.warnings);
    let own = proc::cgroup(pid1(&c));
    assert!(own.contains(&format!("/{name}/")), "{own}");
    // The daemon itself is in the root of what it sees, and v2 has no controllers below a cgroup
    // with processes.
    let v2_memory = !c.cgroups.contains_key("memory");
    let limit = if v2_memory {
        limited()
    } else {
        json!({"resources": {"unified": {"hugetlb.2MB.max": "0"}}})
    };
    let problem = t
        .post_json("/v1/containers?start=true", &with(sleeper_config(), limit))
        .problem(422, "start_failed");
    let said = ["processes of its own", "to hand down"];
    assert!(
        said.iter().any(|words| problem.detail.contains(words)),
        "{problem:?}"
    );
    if !v2_memory {
        let limited = t.sleeper_with(limited());
        assert!(limited.warnings.is_empty(), "{:?}", limited.warnings);
    }
    t.nothing_leaks();
    t.stop();
    drop(nest);
    t.finish_stopped();
}
