//! What a running exec is asked to do.

use littlebox_protocol::{Call, Target, TerminalSize};
use littlebox_types::TermSize;
use rustix::io::Errno;

use crate::engine::{Engine, EngineError, ExecHandle};
use crate::supervisor::{Helper, HelperError};

impl Engine {
    /// Sends a signal to an exec.
    pub async fn signal_exec(&self, exec: &ExecHandle, signal: i32) -> Result<(), EngineError> {
        let helper = running(exec)?;
        let target = Target::Exec(exec.id.to_string());
        let call = Call::Signal {
            target,
            signal,
            all: false,
        };
        helper.done(call).await.map_err(|e| refusal(exec, e))?;
        Ok(())
    }

    /// Sets the size of an exec's terminal.
    pub async fn resize_exec(&self, exec: &ExecHandle, size: TermSize) -> Result<(), EngineError> {
        let helper = running(exec)?;
        if !exec.record().terminal {
            return Err(EngineError::NotAvailable("the exec has no terminal".into()));
        }
        let size = TerminalSize {
            rows: size.rows,
            cols: size.cols,
        };
        let target = Target::Exec(exec.id.to_string());
        let call = Call::Resize { target, size };
        helper.done(call).await.map_err(|e| refusal(exec, e))?;
        Ok(())
    }
}

/// Why a helper did not do what an exec was to be asked.
fn refusal(exec: &ExecHandle, error: HelperError) -> EngineError {
    let id = exec.id.to_string();
    let errno = match &error {
        HelperError::Step(failure) => Errno::from_raw_os_error(failure.errno),
        HelperError::Gone => Errno::SRCH,
        _ => return error.into(),
    };
    match errno {
        Errno::SRCH => EngineError::ExecEnded { id },
        Errno::AGAIN => EngineError::ExecStarting { id },
        _ => error.into(),
    }
}

/// The helper of an exec that runs.
fn running(exec: &ExecHandle) -> Result<Helper, EngineError> {
    let ended = || EngineError::ExecEnded {
        id: exec.id.to_string(),
    };
    if *exec.ended.borrow() {
        return Err(ended());
    }
    match exec.container.running_helper("an exec") {
        Err(EngineError::NotRunning { .. }) => Err(ended()),
        helper => helper,
    }
}
