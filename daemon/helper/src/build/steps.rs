//! The list of steps while it is worked through: each is timed, named in its failure, and can be
//! made to fail by a test.

use rustix::time::{ClockId, clock_gettime};

use crate::fault::Fault;
use crate::protocol::{Injection, Step, StepFailure, StepTiming};

/// Warnings: what could not be done and was not essential.
pub type Warnings = Vec<String>;

/// Runs steps and remembers how long each took. The child of the fork goes on with its copy.
#[derive(Debug)]
pub struct Steps {
    base_ns: u64,
    /// Added to this process' clock: a joined time namespace shifts it.
    shift_ns: u64,
    inject: Option<Injection>,
    /// What was done so far.
    pub timings: Vec<StepTiming>,
    /// What went wrong without harm.
    pub warnings: Warnings,
}

impl Steps {
    /// Starts the clock.
    pub fn start(inject: Option<Injection>) -> Steps {
        Steps {
            base_ns: monotonic_ns(),
            shift_ns: 0,
            inject,
            timings: Vec::with_capacity(40),
            warnings: Vec::new(),
        }
    }

    /// Runs one step.
    pub fn run<T>(
        &mut self,
        step: Step,
        work: impl FnOnce(&mut Warnings) -> Result<T, Fault>,
    ) -> Result<T, StepFailure> {
        self.run_on(step, None, work)
    }

    /// Runs one step of several with the same name, e.g. the mount on `subject`.
    pub fn run_on<T>(
        &mut self,
        step: Step,
        subject: Option<String>,
        work: impl FnOnce(&mut Warnings) -> Result<T, Fault>,
    ) -> Result<T, StepFailure> {
        let start_ns = self.now();
        let result = match self.injected(step) {
            Some(fault) => Err(fault),
            None => work(&mut self.warnings),
        };
        let duration_ns = self.now().saturating_sub(start_ns);
        self.timings.push(StepTiming { step, subject, start_ns, duration_ns });
        result.map_err(|fault| fault.of_step(step))
    }

    /// Forgets what the other process tells about itself: the child's copy starts empty.
    pub fn fork(self) -> Steps {
        Steps { timings: Vec::with_capacity(40), warnings: Vec::new(), ..self }
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        monotonic_ns().wrapping_add(self.shift_ns).saturating_sub(self.base_ns)
    }

    /// Runs something that may change this process' clock, without a jump in [`Steps::now`].
    pub fn across_time_namespace<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = monotonic_ns();
        let result = work();
        self.shift_ns = self.shift_ns.wrapping_add(before.wrapping_sub(monotonic_ns()));
        result
    }

    /// Whether this failure is the test's order to kill the helper (an injection with errno 0).
    pub fn is_fatal(&self, failure: &StepFailure) -> bool {
        self.inject.as_ref().is_some_and(|i| i.errno == 0 && i.step == failure.step)
    }

    fn injected(&self, step: Step) -> Option<Fault> {
        let inject = self.inject.as_ref().filter(|inject| inject.step == step)?;
        Some(Fault {
            errno: inject.errno,
            syscall: "",
            path: None,
            detail: Some("injected by a test".to_owned()),
        })
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Both fields are non-negative for this clock.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
