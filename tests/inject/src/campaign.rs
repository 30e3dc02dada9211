//! Every operation with every point: what fails, fails in a way that the client is told, and leaves
//! nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use littlebox_tests::prelude::*;
use littlebox_types::Container;

use crate::injector::{Injector, Watched};
use crate::operation::{self, Act, Operation};
use crate::point::{Effect, Point, points_of};
use crate::role::Role;
use crate::truth;

/// What is tried.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These operations alone.
    pub operations: Vec<String>,
    /// This point alone.
    pub point: Option<Point>,
    /// Points of these kinds of processes alone; empty: of all.
    pub roles: Vec<Role>,
    /// At most so many points, spread over all; `None`: all.
    pub sample: Option<usize>,
    /// Another seed is another sample.
    pub seed: u64,
    /// Beds side by side.
    pub jobs: usize,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Totals {
    /// Points that were come to.
    pub met: usize,
    /// Points that the operation did not come to this time.
    pub missed: usize,
    /// What went wrong, a line each.
    pub failures: Vec<String>,
}

type Job = (&'static Operation, Point);

/// Runs the selection.
///
/// # Errors
/// No operation is called so; the injector cannot be made.
pub fn run(selection: &Selection) -> anyhow::Result<Totals> {
    let operations: Vec<&'static Operation> = operation::ALL
        .iter()
        .filter(|o| {
            selection.operations.is_empty() || selection.operations.contains(&o.name.into())
        })
        .collect();
    anyhow::ensure!(!operations.is_empty(), "no operation is called so");
    let jobs = match selection.point {
        Some(point) => operations.iter().map(|o| (*o, point)).collect(),
        None => {
            let mut jobs = discover(&operations)?;
            let roles = &selection.roles;
            jobs.retain(|(_, point)| roles.is_empty() || roles.contains(&point.role));
            anyhow::ensure!(
                !jobs.is_empty(),
                "these processes make no call that is noticed"
            );
            sampled(jobs, selection)
        }
    };
    println!("inject: {} points, seed {}", jobs.len(), selection.seed);
    carry_out(jobs, selection.jobs.max(1))
}

/// What each operation does when nothing goes wrong.
fn discover(operations: &[&'static Operation]) -> anyhow::Result<Vec<Job>> {
    let mut ground = Ground::new()?;
    let mut jobs = Vec::new();
    for operation in operations {
        let watched = ground
            .carry_out(operation, None)
            .map_err(|error| anyhow::anyhow!("{} with nothing wrong: {error}", operation.name))?;
        let points = watched
            .calls
            .into_iter()
            .flat_map(|((role, call), can_fail)| points_of(role, call, &can_fail));
        let before = jobs.len();
        jobs.extend(points.map(|point| (*operation, point)));
        println!(
            "inject: {:<16} {} points",
            operation.name,
            jobs.len() - before
        );
    }
    ground.finish();
    Ok(jobs)
}

/// A part of all points that depends on nothing but the seed.
fn sampled(mut jobs: Vec<Job>, selection: &Selection) -> Vec<Job> {
    let Some(limit) = selection.sample else {
        return jobs;
    };
    let order = |(operation, point): &Job| {
        let mut hasher = DefaultHasher::new();
        (selection.seed, operation.name, point.to_string()).hash(&mut hasher);
        hasher.finish()
    };
    jobs.sort_by_key(order);
    jobs.truncate(limit);
    jobs
}

fn carry_out(jobs: Vec<Job>, workers: usize) -> anyhow::Result<Totals> {
    let jobs = Mutex::new(jobs.into_iter());
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                let (tell, jobs) = (tell.clone(), &jobs);
                scope.spawn(move || work(jobs, &tell))
            })
            .collect();
        drop(tell);
        let totals = sum(&told);
        for worker in workers {
            worker.join().expect("failures are caught")?;
        }
        Ok(totals)
    })
}

enum Outcome {
    Met,
    Missed,
    Failed(String),
}

fn sum(told: &Receiver<Outcome>) -> Totals {
    let mut totals = Totals::default();
    for outcome in told {
        match outcome {
            Outcome::Met => totals.met += 1,
            Outcome::Missed => totals.missed += 1,
            Outcome::Failed(line) => {
                println!("inject: FAILED {line}");
                totals.failures.push(line);
            }
        }
    }
    totals
}

fn work(jobs: &Mutex<std::vec::IntoIter<Job>>, tell: &Sender<Outcome>) -> anyhow::Result<()> {
    let mut ground = Ground::new()?;
    loop {
        let next = jobs.lock().expect("no holder panics").next();
        let Some((operation, point)) = next else {
            break;
        };
        let outcome = match ground.carry_out(operation, Some(point)) {
            Ok(watched) if watched.fired => Outcome::Met,
            Ok(_) => Outcome::Missed,
            Err(error) => {
                let error = error.replace('\n', "\n    ");
                Outcome::Failed(format!("{} {point}: {error}", operation.name))
            }
        };
        let _receiver_lives = tell.send(outcome);
    }
    ground.finish();
    Ok(())
}

/// Where points are tried: a daemon under the injector, used again as long as it is as it was.
struct Ground {
    injector: Injector,
    bed: Option<Bed>,
}

impl Ground {
    fn new() -> anyhow::Result<Ground> {
        Ok(Ground {
            injector: Injector::new()?,
            bed: None,
        })
    }

    fn take_bed(&mut self) -> Bed {
        let bed = self.bed.take();
        bed.unwrap_or_else(|| {
            Bed::builder()
                .surroundings(self.injector.surroundings())
                .build()
        })
    }

    fn finish(&mut self) {
        if let Some(bed) = self.bed.take() {
            bed.finish();
        }
    }

    /// After a failure the next point gets a new daemon.
    fn carry_out(
        &mut self,
        operation: &Operation,
        point: Option<Point>,
    ) -> Result<Watched, String> {
        let mut bed = self.take_bed();
        let injector = &self.injector;
        let log = bed.dirs.log.clone();
        let tried = catch_unwind(AssertUnwindSafe(move || {
            let watched = one(injector, &mut bed, operation, point)
                .map_err(|error| format!("{error}\n{}", tail_of(&log)))?;
            Ok((bed, watched))
        }));
        let (bed, watched) = tried.unwrap_or_else(|panic| {
            // What is armed still must not meet the next.
            let _armed = self.injector.stop();
            Err(message_of(panic.as_ref()))
        })?;
        self.bed = Some(bed);
        Ok(watched)
    }
}

/// The last lines of a daemon's log.
fn tail_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "panicked".to_owned())
}

/// One operation under one point, and everything that must be true afterwards.
fn one(
    injector: &Injector,
    t: &mut Bed,
    operation: &Operation,
    point: Option<Point>,
) -> Result<Watched, String> {
    let bystander = t.sleeper();
    let container = (operation.prepare)(t);
    // Read before a point is armed: it is for the operation, and not for a question of the campaign.
    let before = matches!(operation.act, Act::Recovery(_)).then(|| t.inspect(&container));
    injector.watch(point, bystander.helper_pid);
    let answer = act(t, operation.act, &container, before.as_ref());
    let watched = injector.stop();
    let killed = point.is_some_and(|point| point.effect == Effect::Killed);
    if !survives(t, watched.fired && killed) {
        if let (Act::Request(_), false) = (operation.act, killed) {
            return Err("littleboxd ended".to_owned());
        }
        t.start_again();
    }
    truth::holds(t)?;
    truth::lives(t, &bystander)?;
    if let (None, Act::Request(_)) = (point, operation.act) {
        succeeded(answer.as_ref())?;
    }
    let answer = match operation.act {
        Act::Request(_) => answer.filter(|answer| (200..300).contains(&answer.status())),
        // Nobody is answered: what was so before must be so again.
        Act::Recovery(_) | Act::Restart => Some(t.get("/v1/health").expect(200)),
    };
    // A container whose helper was killed is lost.
    let lost =
        killed && point.is_some_and(|point| matches!(point.role, Role::Helper | Role::Child));
    if let Some(answer) = answer.filter(|_| !lost) {
        (operation.holds)(t, &container, &answer)?;
    }
    // Whatever has happened, the next start works; a zygote that was lost is back after it.
    if t.sh("echo fine") != "fine\n" {
        return Err("the next start does not work".to_owned());
    }
    t.nothing_leaks();
    Ok(watched)
}

/// With nothing wrong an operation does what it is for.
fn succeeded(answer: Option<&Response>) -> Result<(), String> {
    match answer {
        Some(answer) if (200..300).contains(&answer.status()) => Ok(()),
        Some(answer) => Err(format!("answered {}: {}", answer.status(), answer.text())),
        None => Err("was not answered".to_owned()),
    }
}

fn act(t: &mut Bed, act: Act, container: &str, before: Option<&Container>) -> Option<Response> {
    match act {
        Act::Request(request) => t.client.try_send(&request(container)).ok(),
        Act::Recovery(meanwhile) => {
            let before = before.expect("it was read before a recovery");
            t.kill9();
            meanwhile(pid1(before), before.helper_pid.expect("it runs"));
            t.try_start_again();
            None
        }
        Act::Restart => {
            t.stop();
            t.try_start_again();
            None
        }
    }
}

/// Whether the daemon still runs; one that was killed takes a moment to end.
fn survives(t: &mut Bed, may_be_killed: bool) -> bool {
    for _ in 0..if may_be_killed { 20 } else { 1 } {
        if !t.daemon_runs() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
