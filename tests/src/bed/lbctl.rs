//! The command line against the test's daemon.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::Bed;
use crate::daemon::binary;
use crate::pty::Pty;

impl Bed {
    /// Runs the command line, without stdin.
    #[track_caller]
    pub fn lbctl(&self, args: &[&str]) -> Output {
        self.lbctl_command(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The command line, to be run.
    #[track_caller]
    pub fn lbctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("lbctl"));
        command
            .args(args)
            .env("LITTLEBOX_SOCKET", &self.dirs.socket)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env_remove("NO_COLOR");
        command
    }

    /// Runs the command line with this stdin.
    #[track_caller]
    pub fn lbctl_stdin(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = self
            .lbctl_command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let stdin = stdin.to_vec();
        // It may end without reading.
        let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Runs the command line; it must succeed. Its stdout.
    #[track_caller]
    pub fn lbctl_ok(&self, args: &[&str]) -> String {
        let out = self.lbctl(args);
        assert!(
            out.status.success(),
            "lbctl {args:?}: {}\n{}{}",
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// The command line on a terminal of 24 rows and 80 columns.
    #[track_caller]
    pub fn lbctl_pty(&self, args: &[&str]) -> Pty {
        let socket = self.dirs.socket.to_str().unwrap();
        Pty::spawn(
            &binary("lbctl"),
            args,
            &[("LITTLEBOX_SOCKET", socket)],
            (24, 80),
        )
    }
}
