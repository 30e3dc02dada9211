//! What a running exec is asked to do.

use lbctl::types::TermSize;
use littlebox_helper::protocol::{Call, Target, TerminalSize};

use crate::engine::{Engine, EngineError, ExecHandle};
use crate::supervisor::{Helper, HelperError};

impl Engine {
    /// Sends a signal to an exec.
    pub async fn signal_exec(&self, exec: &ExecHandle, signal: i32) -> Result<(), EngineError> {
        let helper = running(exec)?;
        let target = Target::Exec(exec.id.to_string());
        match helper
            .done(Call::Signal {
                target,
                signal,
                all: false,
            })
            .await
        {
            Ok(_) => Ok(()),
            Err(HelperError::Step(_) | HelperError::Gone) => Err(EngineError::ExecEnded {
                id: exec.id.to_string(),
            }),
            Err(e) => Err(e.into()),
        }
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
        helper
            .done(Call::Resize {
                target: Target::Exec(exec.id.to_string()),
                size,
            })
            .await?;
        Ok(())
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
