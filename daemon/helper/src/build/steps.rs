//! The list of steps while it is worked through: each is timed, named in its failure, and can be
//! made to fail by a test.

use rustix::time::{ClockId, clock_gettime};

use crate::fault::Fault;
use crate::sys::{self, SharedNumber};
use littlebox_protocol::{Injection, Step, StepFailure, StepTiming};

/// Warnings: what could not be done and was not essential.
pub type Warnings = Vec<String>;

/// Runs steps and remembers how long each took. The child of the fork goes on with its copy.
#[derive(Debug)]
pub struct Steps {
    base_ns: u64,
    /// Added to this process' clock: a joined time namespace shifts it.
    shift_ns: u64,
    inject: Option<Injection>,
    in_child: bool,
    /// Where the child is: 0, or one more than the step's place in [`Step::ALL`].
    step_of_child: Option<SharedNumber>,
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
            in_child: false,
            // Without it a failure by timeout names a step less.
            step_of_child: SharedNumber::new().ok(),
            timings: Vec::with_capacity(40),
            warnings: Vec::new(),
        }
    }

    /// Runs one step.
    pub fn run<T, E: IntoFailure>(
        &mut self,
        step: Step,
        work: impl FnOnce(&mut Warnings) -> Result<T, E>,
    ) -> Result<T, StepFailure> {
        self.run_on(step, None, work)
    }

    /// Runs a step that not every container has.
    pub fn run_if<E: IntoFailure>(
        &mut self,
        wanted: bool,
        step: Step,
        work: impl FnOnce(&mut Warnings) -> Result<(), E>,
    ) -> Result<(), StepFailure> {
        if wanted {
            return self.run(step, work);
        }
        self.injected(step)
            .map_or(Ok(()), |fault| Err(fault.of_step(step)))
    }

    /// Runs one step of several with the same name, e.g. the mount on `subject`.
    pub fn run_on<T, E: IntoFailure>(
        &mut self,
        step: Step,
        subject: Option<String>,
        work: impl FnOnce(&mut Warnings) -> Result<T, E>,
    ) -> Result<T, StepFailure> {
        self.mark(step);
        let start_ns = self.now();
        if let Some(fault) = self.injected(step) {
            return Err(fault.of_step(step));
        }
        let result = work(&mut self.warnings);
        let duration_ns = self.now().saturating_sub(start_ns);
        self.timings.push(StepTiming {
            step,
            subject,
            start_ns,
            duration_ns,
        });
        result.map_err(|error| error.into_failure(step))
    }

    /// Forgets what the other process tells about itself: the child's copy starts empty.
    pub fn fork(self) -> Steps {
        let timings = Vec::with_capacity(40);
        Steps {
            timings,
            warnings: Vec::new(),
            in_child: true,
            ..self
        }
    }

    /// In the child: says in which step it is.
    fn mark(&self, step: Step) {
        let place = Step::ALL.iter().position(|known| *known == step);
        let number = place.and_then(|place| u32::try_from(place + 1).ok());
        if let (true, Some(shared), Some(number)) = (self.in_child, &self.step_of_child, number) {
            shared.set(number);
        }
    }

    /// In the helper: the last step that the child has begun.
    pub fn step_of_child(&self) -> Option<Step> {
        let number = usize::try_from(self.step_of_child.as_ref()?.get()).ok()?;
        Step::ALL.get(number.checked_sub(1)?).copied()
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        monotonic_ns()
            .wrapping_add(self.shift_ns)
            .saturating_sub(self.base_ns)
    }

    /// Runs something that may change this process' clock, without a jump in [`Steps::now`].
    pub fn across_time_namespace<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = monotonic_ns();
        let result = work();
        self.shift_ns = self
            .shift_ns
            .wrapping_add(before.wrapping_sub(monotonic_ns()));
        result
    }

    /// A test's order to die here (an injection with errno 0) that the child ran into is the
    /// helper's to follow: at once, without undoing anything.
    pub fn die_if_ordered(&self, failure: &StepFailure) {
        if self
            .inject
            .as_ref()
            .is_some_and(|i| i.errno == 0 && i.step == failure.step)
        {
            die();
        }
    }

    fn injected(&self, step: Step) -> Option<Fault> {
        let inject = self.inject.as_ref().filter(|inject| inject.step == step)?;
        if inject.errno == 0 && !self.in_child {
            die();
        }
        Some(Fault {
            errno: inject.errno,
            syscall: "",
            path: None,
            detail: Some("injected by a test".to_owned()),
        })
    }
}

/// What a step's work may fail with: a fault, or the failure of a step that it names itself.
pub trait IntoFailure {
    /// The failure, of `step` unless it knows better.
    fn into_failure(self, step: Step) -> StepFailure;
}

impl IntoFailure for Fault {
    fn into_failure(self, step: Step) -> StepFailure {
        self.of_step(step)
    }
}

impl IntoFailure for StepFailure {
    fn into_failure(self, _step: Step) -> StepFailure {
        self
    }
}

fn die() -> ! {
    let own = rustix::process::getpid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    // Cannot fail: it is this very process.
    let _ = sys::kill(own, libc::SIGKILL);
    sys::exit_now(1)
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Both fields are non-negative for this clock.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
