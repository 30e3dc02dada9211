//! A program in the foreground, on a terminal of its caller.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::support::{Bed, wait_until};

const PASTED: usize = 300_000;

/// A terminal of the caller: the master, and the end that a command is given.
fn terminal() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize {
        ws_row: 33,
        ws_col: 111,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (File::from(master), slave)
}

/// Runs a command on the slave.
fn on_terminal(bed: &Bed, arguments: &[&str], slave: OwnedFd) -> Child {
    let mut command = bed.command(arguments);
    command.stdin(slave.try_clone().unwrap());
    command.stdout(slave.try_clone().unwrap());
    command.stderr(slave);
    command.spawn().unwrap()
}

/// Everything that comes from a terminal, until it hangs up.
fn read_all(mut master: File) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = master.read(&mut buffer) {
            all.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8_lossy(&all).into_owned()
    })
}

#[test]
fn a_program_finds_the_size_of_the_callers_terminal_when_it_begins() {
    let bed = Bed::running();
    for _ in 0..8 {
        let (master, slave) = terminal();
        let mut exec = on_terminal(&bed, &["exec", "-t", &bed.id, "stty", "size"], slave);
        assert_eq!(read_all(master).join().unwrap(), "33 111\r\n");
        assert!(exec.wait().unwrap().success());
    }
    let mut run = Bed::new("stty size");
    run.config["process"]["terminal"] = json!(true);
    run.write_config();
    let bundle = run.bundle();
    let (master, slave) = terminal();
    let arguments = ["run", "--bundle", bundle.to_str().unwrap(), &run.id];
    let mut child = on_terminal(&run, &arguments, slave);
    assert_eq!(read_all(master).join().unwrap(), "33 111\r\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_pasted_all_arrives_while_it_is_printed_back() {
    let bed = Bed::running();
    let (mut master, slave) = terminal();
    let script = format!("stty raw -echo; echo ready; head -c {PASTED}; echo; echo the end");
    let mut exec = on_terminal(&bed, &["exec", "-t", &bed.id, "sh", "-c", &script], slave);
    let mut ready = [0; 6];
    master.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    let output = read_all(master.try_clone().unwrap());
    master.write_all(&vec![b'x'; PASTED]).unwrap();
    assert!(exec.wait().unwrap().success());
    let output = output.join().unwrap();
    let pasted = output.bytes().filter(|byte| *byte == b'x').count();
    assert_eq!(pasted, PASTED);
    assert!(output.ends_with("the end\n"));
}

#[test]
fn signals_are_forwarded_while_nobody_reads_the_output() {
    let bed = Bed::running();
    let script = "trap 'exit 9' TERM; while :; do echo 0123456789; done";
    let mut exec = bed
        .command(&["exec", "-t", &bed.id, "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = exec.stdout.take().unwrap();
    let mut first = [0; 4];
    output.read_exact(&mut first).unwrap();
    // Typed at a program that does not read, to a relay whose output nobody reads.
    let mut input = exec.stdin.take().unwrap();
    let typing = std::thread::spawn(move || input.write_all(&vec![b'y'; PASTED]));
    let pid = Pid::from_child(&exec);
    let signalled = wait_until(|| {
        kill_process(pid, Signal::TERM).unwrap();
        exec.try_wait().unwrap().is_some()
    });
    assert!(signalled);
    drop(output);
    let _ = typing.join().unwrap();
}

#[test]
fn a_program_that_opens_its_terminal_again_is_heard() {
    let bed = Bed::running();
    // The shell's own descriptors are closed too, so that for a while nobody has the terminal.
    let script = "exec 0<&- 1>&- 2>&-; sleep 0.3; exec 1>/dev/tty; echo back; exit 3";
    let (master, slave) = terminal();
    let mut exec = on_terminal(&bed, &["exec", "-t", &bed.id, "sh", "-c", script], slave);
    let output = read_all(master);
    assert_eq!(exec.wait().unwrap().code(), Some(3));
    assert_eq!(output.join().unwrap(), "back\r\n");
}

#[test]
fn what_is_typed_while_nobody_has_the_terminal_is_kept() {
    let bed = Bed::running();
    let script = "echo ready; exec 0<&- 1>&- 2>&-; sleep 0.3; exec 0<>/dev/tty 1>&0; \
                  read line; echo got $line";
    let (mut master, slave) = terminal();
    let mut exec = on_terminal(&bed, &["exec", "-t", &bed.id, "sh", "-c", script], slave);
    let mut ready = [0; 7];
    master.read_exact(&mut ready).unwrap();
    master.write_all(b"typed\r").unwrap();
    let output = read_all(master);
    assert!(exec.wait().unwrap().success());
    assert!(output.join().unwrap().contains("got typed"));
}

#[test]
fn processes_that_a_program_leaves_behind_do_not_keep_its_exec() {
    let bed = Bed::running();
    let script = "(trap '' HUP; while :; do echo noise; done) & echo started; exit 4";
    let (master, slave) = terminal();
    let mut exec = on_terminal(&bed, &["exec", "-t", &bed.id, "sh", "-c", script], slave);
    let output = read_all(master);
    assert_eq!(exec.wait().unwrap().code(), Some(4));
    assert!(output.join().unwrap().contains("started"));
}
