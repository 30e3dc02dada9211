//! A plan: the steps by which a container is built, with equivalent commands.

use std::fmt::Write as _;

use littlebox_types::{Plan, PlanStep};

use super::error::Failure;
use super::{Context, output, sanitize, time};

/// Prints a plan.
pub fn print(ctx: &Context, plan: &Plan) -> Result<(), Failure> {
    if ctx.json {
        output::json(plan)
    } else {
        output::print(&render(plan))
    }
}

fn render(plan: &Plan) -> String {
    let mut out = String::new();
    let timed = plan.steps.iter().any(|s| s.duration_ns.is_some());
    for (i, step) in plan.steps.iter().enumerate() {
        render_step(&mut out, i + 1, step, timed);
    }
    for ns in &plan.namespaces {
        let verdict = if ns.host == ns.container {
            "shared with the host"
        } else {
            "its own"
        };
        let _ = writeln!(
            out,
            "{:<7} {:>11} on the host, {:>11} inside: {verdict}",
            ns.kind, ns.host, ns.container
        );
    }
    if let Some(total) = plan.total_ns {
        let _ = writeln!(
            out,
            "{} ms from the plan to the program",
            time::millis(total)
        );
    }
    out
}

fn render_step(out: &mut String, number: usize, step: &PlanStep, timed: bool) {
    let _ = write!(out, "{number:>3}. ");
    if timed {
        let ms = step.duration_ns.map(time::millis).unwrap_or_default();
        let _ = write!(out, "{ms:>8} ms  ");
    }
    let _ = writeln!(
        out,
        "{}: {}",
        sanitize::text(&step.step),
        sanitize::text(&step.what)
    );
    for command in &step.commands {
        for (i, line) in command.lines().enumerate() {
            let sign = if i == 0 { '$' } else { '>' };
            let _ = writeln!(out, "       {sign} {}", sanitize::text(line));
        }
    }
    if let Some(failure) = &step.failure {
        let _ = writeln!(out, "       FAILED: {}", sanitize::text(&failure.detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littlebox_types::{Failure as StepFailure, PlanNamespace};

    #[test]
    fn steps_are_numbered_timed_and_explained() {
        let step = |duration_ns, failure| PlanStep {
            step: "pivot_root".into(),
            what: "make it the root".into(),
            commands: vec!["pivot_root . .\numount -l .".into()],
            start_ns: None,
            duration_ns,
            failure,
        };
        let failure = StepFailure {
            step: "pivot_root".into(),
            errno: None,
            syscall: None,
            path: None,
            detail: "no\x07".into(),
        };
        let namespaces = vec![PlanNamespace {
            kind: "net".into(),
            host: 1,
            container: 2,
        }];
        let plan = Plan {
            steps: vec![step(Some(1_234_567), None), step(None, Some(failure))],
            namespaces,
            total_ns: Some(2_000_000),
        };
        assert_eq!(
            render(&plan),
            "  1.    1.234 ms  pivot_root: make it the root\n       $ pivot_root . .\n       > \
             umount -l .\n  2.          ms  pivot_root: make it the root\n       $ pivot_root . \
             .\n       > umount -l .\n       FAILED: no\\x07\n\
             net               1 on the host,           2 inside: its own\n\
             2.000 ms from the plan to the program\n"
        );
    }
}
