//! What can go wrong between a client and the daemon.

use std::io;
use std::path::PathBuf;

use littlebox_types::Problem;

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon answered with a problem; its `code` is for programs.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// Nobody answers on the socket.
    #[error("cannot connect to littleboxd at {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke while a request or its answer was under way.
    #[error("the connection to littleboxd broke during {request}")]
    Broken {
        /// Method and path.
        request: String,
        /// Why.
        source: hyper::Error,
    },
    /// The interactive stream broke.
    #[error("the interactive stream broke")]
    Stream(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// The daemon ended the interactive stream without a last word.
    #[error("littleboxd ended the interactive stream without a last word")]
    Closed,
    /// An answer that the API does not have.
    #[error("littleboxd answered {request} with {what}")]
    Unexpected {
        /// Method and path.
        request: String,
        /// What came.
        what: String,
    },
    /// An answer's JSON is not what the API promises.
    #[error("the answer to {request} is not what the API promises")]
    Decode {
        /// Method and path.
        request: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A request's body cannot be written as JSON, or its target is no URI.
    #[error("cannot build the request: {0}")]
    Build(String),
}

impl ClientError {
    /// The problem, when the daemon told one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// The problem's stable code, when the daemon told one.
    pub fn code(&self) -> Option<&str> {
        self.problem().map(|p| p.code.as_str())
    }

    /// Whether the daemon went away (it may be restarting): trying again can help.
    pub fn is_disconnect(&self) -> bool {
        match self {
            ClientError::Connect { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                )
            }
            ClientError::Broken { .. } | ClientError::Stream(_) | ClientError::Closed => true,
            ClientError::Problem(problem) => problem.code == "unavailable",
            _ => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ClientError::Problem(problem) => problem.hint.clone(),
            ClientError::Connect { source, .. } => Some(connect_hint(source.kind()).to_owned()),
            ClientError::Unexpected { .. } | ClientError::Decode { .. } => {
                Some("is it littleboxd, of the same version, that listens there?".to_owned())
            }
            _ => None,
        }
    }
}

fn connect_hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "use sudo, or become a member of the group that owns the socket: \
             usermod -aG littlebox USER, then log in again"
        }
        io::ErrorKind::NotFound => {
            "is littleboxd running? start it with 'systemctl start littleboxd', or name its socket \
             with --socket or LITTLEBOX_SOCKET"
        }
        io::ErrorKind::ConnectionRefused => {
            "the socket is there but nobody listens: start littleboxd, for example with \
             'systemctl start littleboxd'"
        }
        _ => "is littleboxd running, and is that its socket?",
    }
}
