//! The small init in front of the program.

use super::*;

#[test]
fn init_reaps_orphans_and_ends_as_the_program_ends() {
    let script = "(sh -c 'sleep 0.1 & echo $!' ) ; sleep 0.4; ps -o pid,stat,comm; exit 7";
    let mut bed = Bed::new(script);
    bed.plan.init = true;
    let (output, exit) = bed.run();
    assert_eq!(exit, ProcessExit::Code(7));
    assert!(output.contains("littlebox-init"), "{output}");
    assert!(!output.contains('Z'), "{output}");
}

#[test]
fn init_forwards_signals_and_tells_the_programs() {
    let mut bed = Bed::new("trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done");
    bed.plan.init = true;
    let mut container = bed.launch().unwrap();
    let Stdio::Pipes { stdout, .. } = container.stdio() else {
        panic!()
    };
    while rustix::io::read(stdout, &mut [0; 16]).is_err() {}
    littlebox_helper::sys::kill(container.built.launched.pid, libc::SIGTERM).unwrap();
    assert_eq!(container.wait(), ProcessExit::Code(9));

    let mut bed = {
        drop(container);
        drop(bed);
        Bed::new("kill -9 $$")
    };
    bed.plan.init = true;
    assert_eq!(bed.run().1, ProcessExit::Code(137));
}

#[test]
fn init_has_the_terminal_go_to_the_program() {
    let mut bed = Bed::new("tty; ps -o pid,comm");
    bed.plan.init = true;
    bed.plan.process.terminal = Some(TerminalSize { rows: 24, cols: 80 });
    let (output, exit) = bed.run();
    assert_eq!(exit, ProcessExit::Code(0));
    assert!(output.starts_with("/dev/pts/0\r\n"), "{output}");
}

#[test]
fn init_tells_a_command_that_does_not_exist() {
    let mut bed = Bed::new("");
    bed.plan.init = true;
    bed.plan.process.args = vec!["nothing".to_owned()];
    assert_eq!(bed.failure().errno, libc::ENOENT);
}
