//! Why a command did not succeed, how it is told, and the exit code.

use std::fmt::Write as _;
use std::io;

use lbctl::client::ClientError;
use littlebox_types::Signal;

use super::sanitize;

/// What a shell shows for a program that SIGPIPE ended.
pub const BROKEN_PIPE_CODE: i32 = Signal::PIPE.shell_code();

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon refused, or could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command line asks for something that makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Something on this side.
    #[error("{what}")]
    Io {
        /// What was done, to what.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Whoever read our output has gone; there is nobody to tell.
    #[error("broken pipe")]
    BrokenPipe,
}

/// A command line that the parser refused: its first paragraph is what is wrong, the others are how
/// it is meant.
impl From<&clap::Error> for Failure {
    fn from(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let (message, hint) = text.split_once("\n\n").unwrap_or((&text, ""));
        let message = message.strip_prefix("error: ").unwrap_or(message);
        Failure::usage(message.trim(), hint.trim())
    }
}

impl Failure {
    /// A [`Failure::Usage`].
    pub fn usage(message: impl Into<String>, hint: &str) -> Self {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        Failure::Usage {
            message: message.into(),
            hint,
        }
    }

    /// A [`Failure::Io`].
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Failure::Io { what, source }
    }

    /// A failed write to stdout.
    pub fn stdout(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            Failure::BrokenPipe
        } else {
            Failure::Io {
                what: "cannot write to standard output".to_owned(),
                source,
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Failure::Client(e) => e.hint(),
            Failure::Usage { hint, .. } => hint.clone(),
            _ => None,
        }
    }

    /// Tells it on stderr: a sentence and a hint, or with `json` a problem document.
    pub fn tell(&self, json: bool) {
        match self {
            Failure::BrokenPipe => {}
            _ if json => eprintln!("{}", self.document()),
            _ => eprint!("{}", self.sentences()),
        }
    }

    fn sentences(&self) -> String {
        let mut text = format!("lbctl: {}\n", sanitize::text(&self.chain()));
        if let Some(hint) = self.hint() {
            let _ = writeln!(text, "hint: {}", sanitize::text(&hint));
        }
        text
    }

    /// The error and what caused it, in one line.
    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some libraries repeat their source.
            if !text.ends_with(&cause_text) {
                let _ = write!(text, ": {cause_text}");
            }
            source = cause.source();
        }
        text
    }

    /// The daemon's problem as it is, or one of our own making with a status of 0.
    fn document(&self) -> String {
        if let Failure::Client(ClientError::Problem(problem)) = self {
            return serde_json::to_string(problem).unwrap_or_default();
        }
        let code = match self {
            Failure::Usage { .. } => "usage",
            Failure::Client(ClientError::Connect { .. }) => "cannot_connect",
            Failure::Client(_) => "connection_broken",
            _ => "client_failed",
        };
        let problem = littlebox_types::Problem {
            kind: format!("urn:littlebox:problem:{code}"),
            title: "Client error".to_owned(),
            detail: self.chain(),
            code: code.to_owned(),
            hint: self.hint(),
            ..littlebox_types::Problem::default()
        };
        serde_json::to_string(&problem).unwrap_or_default()
    }

    /// The exit code; `own` is the command's code for a failure of littlebox (125 where the code
    /// of a container's program is passed on, else 1).
    pub fn exit_code(&self, own: i32) -> i32 {
        match self {
            Failure::BrokenPipe => BROKEN_PIPE_CODE,
            Failure::Client(ClientError::Problem(problem)) if own == 125 => {
                problem.exit_code.unwrap_or(own)
            }
            _ => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littlebox_types::Problem;

    fn problem(exit_code: Option<i32>) -> Failure {
        let problem = Problem {
            detail: "no \u{1b}[31mcontainer".to_owned(),
            hint: Some("see lbctl ps -a".to_owned()),
            exit_code,
            ..Problem::default()
        };
        Failure::Client(ClientError::Problem(Box::new(problem)))
    }

    #[test]
    fn a_problem_is_told_with_its_hint_and_without_its_escapes() {
        assert_eq!(
            problem(None).sentences(),
            "lbctl: no \\x1b[31mcontainer\nhint: see lbctl ps -a\n"
        );
    }

    #[test]
    fn the_exit_code_of_a_failed_start_is_passed_on_where_programs_are_run() {
        assert_eq!(problem(Some(127)).exit_code(125), 127);
        assert_eq!(problem(Some(127)).exit_code(1), 1);
        assert_eq!(problem(None).exit_code(125), 125);
    }

    #[test]
    fn a_missing_socket_says_what_to_do() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let failure = Failure::Client(ClientError::Connect {
            socket: "/x.sock".into(),
            source,
        });
        let text = failure.sentences();
        assert!(
            text.starts_with("lbctl: cannot connect to littleboxd at /x.sock: "),
            "{text}"
        );
        assert!(text.contains("hint: is littleboxd running?"), "{text}");
    }
}
