//! A program on a real terminal, as a person's shell would run it.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::proc;
use crate::ws::contains;

/// A child on a terminal of its own.
#[derive(Debug)]
pub struct Pty {
    master: std::fs::File,
    slave: std::fs::File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    /// Starts `program args` with the terminal as its controlling one, of this size.
    pub fn spawn(program: &Path, args: &[&str], env: &[(&str, &str)], size: (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(0o400) // O_NOCTTY
            .open(OsStr::from_bytes(name.as_bytes()))
            .unwrap();
        tcsetwinsize(&master, winsize(size)).unwrap();
        // setsid(1) --ctty makes its stdin the controlling terminal of the new session.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program)
            .args(args)
            .envs(env.iter().copied())
            .env("TERM", "xterm-256color")
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave.try_clone().unwrap()))
            .spawn()
            .expect("setsid is part of util-linux");
        let master = std::fs::File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        gather(master.try_clone().unwrap(), Arc::clone(&seen));
        Self {
            master,
            slave,
            child,
            seen,
        }
    }

    /// Everything shown so far.
    pub fn seen(&self) -> Vec<u8> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The same as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen()).into_owned()
    }

    /// Types.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    /// Waits until `needle` is on the screen.
    #[track_caller]
    pub fn until(&self, needle: &str) {
        let start = std::time::Instant::now();
        while !contains(&self.seen(), needle.as_bytes()) {
            assert!(
                start.elapsed().as_secs() < 20,
                "{needle:?} never showed: {:?}",
                self.text()
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Changes the terminal's size; the foreground process gets SIGWINCH.
    pub fn resize(&self, size: (u16, u16)) {
        tcsetwinsize(&self.master, winsize(size)).unwrap();
    }

    /// Whether the terminal is in raw mode (no line editing, no echo).
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// The exit code of a program that has ended.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().unwrap()?;
        Some(status.code().unwrap_or(-1))
    }

    /// Waits for the end of the program: its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(
                start.elapsed().as_secs() < 30,
                "the program does not end: {:?}",
                self.text()
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// The program's PID (below `setsid`).
    pub fn pid(&self) -> u32 {
        // setsid executes the program in place when it is no group leader, else it forks.
        proc::children(self.child.id())
            .first()
            .copied()
            .unwrap_or_else(|| self.child.id())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // A test that failed leaves the program running.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn winsize((rows, cols): (u16, u16)) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Reads the master until the last slave is closed (EIO, pty(7)).
fn gather(mut master: std::fs::File, seen: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buf = [0u8; 4096];
        while let Ok(n @ 1..) = master.read(&mut buf) {
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(&buf[..n]);
        }
    });
}
