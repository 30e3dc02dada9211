//! What the default seccomp filter costs: compiled, remembered, loaded.

use std::time::{Duration, Instant};

use anyhow::Context;
use littlebox_helper::sys::load_seccomp_filter;
use littlebox_plan::seccomp::Compiler;

use crate::Bench;
use crate::report::{Report, Table};
use crate::turns::{Contender, take_turns};

/// The eleven capabilities of a default container.
const CAPABILITIES: u64 =
    1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31;

/// Measures.
///
/// # Errors
/// The kernel does not take the filter.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let compiler = Compiler::new((6, 1));
    let filter = compiler.default_filter(CAPABILITIES)?;
    println!(
        "the default seccomp filter has {} instructions",
        filter.program.0.len()
    );
    let mut contenders = [
        Contender::new("read and compile the profile", || {
            let began = Instant::now();
            Compiler::new((6, 1)).default_filter(CAPABILITIES)?;
            Ok(vec![ms(began.elapsed())])
        }),
        Contender::new("take it from the cache", || {
            let began = Instant::now();
            compiler.default_filter(CAPABILITIES)?;
            Ok(vec![ms(began.elapsed())])
        }),
        Contender::new("load it into the kernel", || {
            // A filter is a thread's and cannot be taken off: each gets a thread of its own.
            let program = filter.program.0.clone();
            let loaded = std::thread::spawn(move || load(&program)).join();
            let took = loaded.map_err(|_| anyhow::anyhow!("the thread died"))??;
            Ok(vec![ms(took)])
        }),
    ];
    let samples = take_turns(&mut contenders, bench.scaled(500))?;
    report.add(Table::new(
        "the default seccomp filter",
        "ms",
        Some("load it into the kernel"),
        samples,
    ));
    Ok(())
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

fn load(program: &[littlebox_protocol::BpfInstruction]) -> anyhow::Result<Duration> {
    rustix::thread::set_no_new_privs(true).context("prctl(PR_SET_NO_NEW_PRIVS)")?;
    let began = Instant::now();
    load_seccomp_filter(program, 0).context("seccomp")?;
    Ok(began.elapsed())
}
