//! Execs: processes that join what was built.

use super::*;

#[test]
fn a_terminal_of_an_exec_is_the_containers() {
    let bed = Bed::new("sleep 100");
    let container = bed.launch().unwrap();
    let mut plan = bed.exec_plan("tty; stty size");
    plan.process.terminal = Some(TerminalSize { rows: 10, cols: 20 });
    assert_eq!(bed.exec(&container, &plan).0, "/dev/pts/0\r\n10 20\r\n");
}

#[test]
fn an_exec_is_in_all_namespaces_and_the_cgroup_of_the_container() {
    let bed = Bed::new(
        "for n in /proc/self/ns/*; do readlink $n; done; cat /proc/self/cgroup; echo; exec sleep 100",
    );
    let container = bed.launch().unwrap();
    let script = "for n in /proc/self/ns/*; do readlink $n; done; cat /proc/self/cgroup";
    let (exec, exit) = bed.exec(&container, &bed.exec_plan(script));
    assert_eq!(exit, ProcessExit::Code(0));
    let Stdio::Pipes { stdout, .. } = container.stdio() else {
        panic!()
    };
    let mut own = String::new();
    while !own.ends_with("\n\n") {
        let mut buffer = [0; 4096];
        if let Ok(len) = rustix::io::read(stdout, &mut buffer) {
            own.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        }
    }
    assert_eq!(own.trim(), exec.trim());
    assert!(
        exec.contains("pids:/\n") || exec.contains("0::/\n"),
        "{exec}"
    );
}

#[test]
fn an_exec_in_a_user_namespace_is_its_root() {
    let bed = Bed::new("exec sleep 100").with_user_namespace();
    let container = bed.launch().unwrap();
    let (output, _) = bed.exec(
        &container,
        &bed.exec_plan("id -u; touch /made; ls -n / | grep made"),
    );
    assert!(output.starts_with("0\n"), "{output}");
    assert!(output.contains(" 0        0 "), "{output}");
}

#[test]
fn an_exec_of_nothing_is_enoent() {
    let bed = Bed::new("sleep 100");
    let container = bed.launch().unwrap();
    let mut plan = bed.exec_plan("");
    plan.process.args = vec!["nothing".to_owned()];
    let failure = build::exec(&container.built, &bed.plan, &plan).unwrap_err();
    assert_eq!((failure.step, failure.errno), (Step::Exec, libc::ENOENT));
}

#[test]
fn an_exec_in_a_container_that_ended_fails() {
    let bed = Bed::new("true");
    let mut container = bed.launch().unwrap();
    container.wait();
    assert!(build::exec(&container.built, &bed.plan, &bed.exec_plan("true")).is_err());
}

#[test]
fn an_exec_has_stdin_and_its_own_exit() {
    let bed = Bed::new("sleep 100");
    let container = bed.launch().unwrap();
    let mut plan = bed.exec_plan("read x; exit $x");
    plan.stdin = true;
    let mut exec = build::exec(&container.built, &bed.plan, &plan).unwrap();
    let Some(Stdio::Pipes { stdin, .. }) = &mut exec.stdio else {
        panic!()
    };
    rustix::io::write(stdin.take().unwrap(), b"42\n").unwrap();
    assert_eq!(finish_exec(exec).1, ProcessExit::Code(42));
}
