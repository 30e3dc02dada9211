//! How long a helper and its daemon wait for what may never come, the inner bounds before the outer.
//!
//! Whoever waits for another waits longer than that one does: else it takes for silent, and ends, what
//! was about to answer. The assertions below say which bound lies within which. They hold between
//! programs of one build; a helper of an older daemon has its own.

use std::time::Duration;

/// A blocking wait for the death of a killed process where there is no event loop that reaps it
/// later, and in the loop for a process that types an end of file.
pub const REAP: Duration = Duration::from_secs(1);
/// A freeze that somebody waits for without a loop: for the kill or the signal of a whole cgroup.
pub const FREEZE_ON_THE_SPOT: Duration = Duration::from_secs(2);
/// The kill of everything in a cgroup, with the freeze before it where the kernel needs one. The
/// supervisor waits for that of the container's; those of execs are sources of its loop.
pub const KILL: Duration = Duration::from_secs(4);
/// The removal of a cgroup whose processes were killed.
pub const REMOVE: Duration = Duration::from_secs(5);
/// The search for the descendants of an exec whose time is up and that has no cgroup of its own.
pub const DESCENDANTS: Duration = Duration::from_millis(500);
/// The rest of the output of a container that has ended.
pub const DRAIN: Duration = Duration::from_secs(2);
/// The death of an exec that was killed with its container, whose exit record waits for it.
pub const DYING_EXEC: Duration = Duration::from_secs(5);
/// A pause or a resumption.
pub const FREEZE: Duration = Duration::from_secs(5);
/// How long a pause waits for execs on their way: frozen, they could not finish their start.
pub const EXECS_BEFORE_FREEZE: Duration = Duration::from_secs(2);
/// A request that concerns an exec on its way, until that has started.
pub const EXEC_ON_ITS_WAY: Duration = Duration::from_secs(5);
/// A process that goes somewhere in the helper's stead: it may meet a file system that does not
/// answer.
pub const DEPUTY: Duration = Duration::from_secs(20);

/// The daemon's, for the answer to a request. Whatever a helper is asked, it does in milliseconds or
/// gives up within this time; one that is stopped, or that waits in the kernel, never answers.
pub const ANSWER: Duration = Duration::from_secs(10);
/// The daemon's, for a helper to undo a start, beyond the start's own limit.
pub const UNDO: Duration = Duration::from_secs(15);
/// The daemon's, for a helper that does one thing.
pub const WORK: Duration = Duration::from_secs(30);
/// The daemon's, from the kill of a container to the last word of its helper.
pub const END: Duration = Duration::from_secs(15);
/// The daemon's, for the exit record of a container that it has ended without its helper.
pub const RECORD: Duration = Duration::from_secs(2);
/// A client's, for the end of what was killed: longer than all that brings it about.
pub const DEATH: Duration = Duration::from_secs(60);

/// Whether `parts`, one after the other, are over before `whole`.
const fn within(parts: &[Duration], whole: Duration) -> bool {
    let (mut sum, mut n) = (0, 0);
    while n < parts.len() {
        sum += parts[n].as_millis();
        n += 1;
    }
    sum < whole.as_millis()
}

// A kill that had to freeze still has time to catch up with what cannot be frozen.
const _: () = assert!(within(&[FREEZE_ON_THE_SPOT], KILL));
// A request waits behind the end of the container: the kill of its cgroup, and its removal.
const _: () = assert!(within(&[KILL, REMOVE], ANSWER));
// One exec whose time is up is ended in a round of the loop, and one process may be stuck.
const _: () = assert!(within(&[DESCENDANTS, REAP], ANSWER));
const _: () = assert!(within(&[FREEZE], ANSWER) && within(&[EXEC_ON_ITS_WAY], ANSWER));
// Whatever the execs do, there is time left to freeze.
const _: () = assert!(within(&[EXECS_BEFORE_FREEZE, FREEZE_ON_THE_SPOT], FREEZE));
// A start that failed waits for its child, for the one in its place, for how that ended, and for its
// reaping.
const _: () = assert!(within(&[REAP, REAP, REAP, REAP, KILL, REMOVE], UNDO));
const _: () = assert!(within(&[DEPUTY, REAP], WORK) && within(&[KILL, REMOVE], WORK));
// Between the kill and the last word: everything is killed, execs die while the output is read, the
// cgroup goes.
const _: () = assert!(within(&[KILL, DYING_EXEC, REMOVE], END) && within(&[DRAIN], DYING_EXEC));
const _: () = assert!(within(&[END, WORK, RECORD], DEATH));
