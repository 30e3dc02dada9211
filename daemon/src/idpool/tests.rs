//! Ranges are never given twice, whatever happens in between.

use std::collections::HashMap;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use proptest::prelude::*;

use super::*;

/// Looks itself, and does not come back from where nobody answers.
#[derive(Debug)]
struct Looks;

impl Looker for Looks {
    fn is_missing(&self, file: PathBuf, look: Look) -> BoxFuture<'_, bool> {
        if file.starts_with("/dead") {
            return async move {
                let _kept = look;
                std::future::pending().await
            }
            .boxed();
        }
        std::future::ready(matches!(file.try_exists(), Ok(false))).boxed()
    }
}

fn open(config: PoolConfig, state: &Path) -> IdPool {
    IdPool::open(config, state, Looks).unwrap()
}

fn now<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(work)
}

fn config(registry: &Path, ranges: u32) -> PoolConfig {
    PoolConfig {
        start: 10 * UNIT,
        count: ranges * UNIT,
        size: UNIT,
        registry: registry.to_owned(),
    }
}

/// A state directory whose daemon could come back.
fn state(base: &Path, name: &str) -> PathBuf {
    let dir = base.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("littlebox.db"), "").unwrap();
    dir
}

fn claims(registry: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(registry)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[derive(Debug, Clone)]
enum Do {
    Allocate(usize),
    Release(usize, usize),
    /// The daemon is killed, with or without its last allocation recorded, and comes back.
    Restart(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let step = prop_oneof![
        4 => (0..3usize).prop_map(Do::Allocate),
        3 => (0..3usize, any::<usize>()).prop_map(|(who, which)| Do::Release(who, which)),
        1 => (0..3usize, any::<bool>()).prop_map(|(who, lost)| Do::Restart(who, lost)),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_two_containers_of_three_daemons_ever_share_an_id(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let registry = dir.path().join("registry");
        let states: Vec<_> = (0..3).map(|i| state(dir.path(), &format!("d{i}"))).collect();
        let open = |who: usize| open(config(&registry, 12), &states[who]);
        let mut pools: Vec<_> = (0..3).map(open).collect();
        let mut held: Vec<Vec<(ContainerId, IdRange)>> = vec![Vec::new(); 3];
        for step in steps {
            match step {
                Do::Allocate(who) => {
                    let id = ContainerId::generate();
                    match now(pools[who].allocate(id)) {
                        Ok(range) => held[who].push((id, range)),
                        // Spare ranges of the others count as used.
                        Err(PoolError::Exhausted { ranges }) => prop_assert_eq!(ranges, 12),
                        Err(other) => panic!("{other}"),
                    }
                }
                Do::Release(who, which) if !held[who].is_empty() => {
                    let at = which % held[who].len();
                    let (id, range) = held[who].swap_remove(at);
                    pools[who].release(id, range);
                }
                Do::Release(..) => {}
                Do::Restart(who, lost) => {
                    if lost {
                        held[who].pop();
                    }
                    pools[who] = open(who);
                    for (id, range) in &held[who] {
                        pools[who].adopt(*id, *range);
                    }
                    now(pools[who].settle()).unwrap();
                }
            }
            let mut owners: HashMap<u32, ContainerId> = HashMap::new();
            for (id, range) in held.iter().flatten() {
                prop_assert!(range.first >= 10 * UNIT && range.first < 22 * UNIT);
                prop_assert_eq!(owners.insert(range.first, *id), None);
            }
            prop_assert!(claims(&registry).len() >= owners.len());
        }
        for (who, pool) in pools.iter().enumerate() {
            for (id, range) in held[who].drain(..) {
                pool.release(id, range);
            }
            now(pool.close());
        }
        prop_assert!(claims(&registry).is_empty());
    }
}

#[test]
fn an_exhausted_pool_says_so_and_a_freed_range_is_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry");
    let pool = open(config(&registry, 2), &state(dir.path(), "a"));
    let (a, b) = (ContainerId::generate(), ContainerId::generate());
    let first = now(pool.allocate(a)).unwrap();
    now(pool.allocate(b)).unwrap();
    let full = now(pool.allocate(ContainerId::generate()));
    assert!(matches!(full, Err(PoolError::Exhausted { ranges: 2 })));
    pool.release(a, first);
    assert_eq!(now(pool.allocate(ContainerId::generate())).unwrap(), first);
}

#[test]
fn a_range_that_another_daemon_took_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry");
    let (a, b) = (state(dir.path(), "a"), state(dir.path(), "b"));
    let id = ContainerId::generate();
    let theirs = open(config(&registry, 1), &a);
    let range = now(theirs.allocate(id)).unwrap();
    let ours = open(config(&registry, 1), &b);
    ours.adopt(ContainerId::generate(), range);
    now(ours.settle()).unwrap();
    match now(ours.ensure(range)) {
        Err(PoolError::Taken { owner, .. }) => assert_eq!(owner, a.display().to_string()),
        other => panic!("{other:?}"),
    }
    // Its state directory is gone: nobody can want the range any more.
    std::fs::remove_dir_all(&a).unwrap();
    now(ours.ensure(range)).unwrap();
}

#[test]
fn ranges_of_several_units_do_not_overlap_with_those_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry");
    let large = PoolConfig {
        size: 4 * UNIT,
        ..config(&registry, 8)
    };
    let large = open(large, &state(dir.path(), "large"));
    let small = open(config(&registry, 8), &state(dir.path(), "small"));
    let block = now(large.allocate(ContainerId::generate())).unwrap();
    for _ in 0..4 {
        let one = now(small.allocate(ContainerId::generate())).unwrap();
        assert!(one.first + one.size <= block.first || block.first + block.size <= one.first);
    }
    assert!(now(small.allocate(ContainerId::generate())).is_err());
    assert!(now(large.allocate(ContainerId::generate())).is_err());
    assert_eq!(claims(&registry).len(), 8);
}

#[test]
fn lines_of_subuid_in_the_pool_are_found() {
    let config = config(Path::new("/r"), 4);
    let text = "anna:100000:65536\nbert:655360:65536\ncarl:589824:65537\n# no\nx:y:z\n";
    assert_eq!(
        delegated(&config, text),
        ["bert:655360:65536", "carl:589824:65537"]
    );
}

#[test]
fn daemons_know_each_other_as_long_as_they_could_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry");
    let (a, b) = (state(dir.path(), "a"), state(dir.path(), "b"));
    let (first, second) = (
        open(config(&registry, 2), &a),
        open(config(&registry, 2), &b),
    );
    for _again in 0..2 {
        now(first.announce(Path::new("/run/a"))).unwrap();
        now(second.announce(Path::new("/run/b"))).unwrap();
    }
    let known = |pool: &IdPool| {
        let mut known = pool.neighbours();
        known.sort();
        known
    };
    let mut both = vec!["/run/a".into(), "/run/b".into(), a.clone(), b.clone()];
    both.sort();
    assert_eq!(known(&first), both);
    now(second.settle()).unwrap();
    now(second.close());
    assert_eq!(known(&second), both);
    std::fs::remove_dir_all(&a).unwrap();
    now(second.announce(Path::new("/run/b"))).unwrap();
    let mut left = vec!["/run/b".into(), b];
    left.sort();
    assert_eq!(known(&second), left);
}

#[test]
fn a_daemon_that_does_not_give_the_lock_back_is_an_error_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry");
    let pool = open(config(&registry, 2), &state(dir.path(), "a"));
    let held = now(pool.lock()).unwrap();
    match now(pool.allocate(ContainerId::generate())) {
        Err(PoolError::Registry(error)) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        other => panic!("{other:?}"),
    }
    drop(held);
    now(pool.allocate(ContainerId::generate())).unwrap();
}

#[test]
fn daemons_that_do_not_answer_hold_nobody_up_for_long_and_keep_their_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry");
    let dead = open(config(&registry, 3), Path::new("/dead/a"));
    let gone = open(config(&registry, 3), &dir.path().join("gone"));
    let range = now(dead.allocate(ContainerId::generate())).unwrap();
    let stale = now(gone.allocate(ContainerId::generate())).unwrap();
    let ours = open(config(&registry, 3), &state(dir.path(), "ours"));
    now(async {
        let begun = Instant::now();
        // As many as there is room for, at the same time.
        let (a, b) = tokio::join!(
            ours.allocate(ContainerId::generate()),
            ours.allocate(ContainerId::generate())
        );
        let mut found = [a.unwrap().first, b.unwrap().first];
        found.sort_unstable();
        assert!(found.contains(&stale.first) && !found.contains(&range.first));
        let full = ours.allocate(ContainerId::generate()).await;
        assert!(matches!(full, Err(PoolError::Exhausted { .. })));
        // Longer than two looks.
        assert!(begun.elapsed() < LOCK_PATIENCE, "{:?}", begun.elapsed());
    });
}

/// The daemon that owns a claim comes back while somebody looks for it.
#[derive(Debug)]
struct ComesBack {
    claim: PathBuf,
}

impl Looker for ComesBack {
    fn is_missing(&self, file: PathBuf, _look: Look) -> BoxFuture<'_, bool> {
        let owner = std::fs::read_link(&self.claim).unwrap();
        assert_eq!(file.parent(), Some(&*owner));
        // Another one for certain: a disk may give an inode's number to the next.
        let new = self.claim.with_extension("new");
        std::os::unix::fs::symlink(owner, &new).unwrap();
        std::fs::rename(new, &self.claim).unwrap();
        std::future::ready(true).boxed()
    }
}

#[test]
fn a_claim_of_a_daemon_that_comes_back_while_it_is_looked_for_stays() {
    let dir = tempfile::tempdir().unwrap();
    let registry = dir.path().join("registry");
    let theirs = open(config(&registry, 1), &state(dir.path(), "theirs"));
    let range = now(theirs.allocate(ContainerId::generate())).unwrap();
    let claim = registry.join((range.first / UNIT).to_string());
    let looker = ComesBack {
        claim: claim.clone(),
    };
    let ours = state(dir.path(), "ours");
    let ours = IdPool::open(config(&registry, 1), &ours, looker).unwrap();
    assert!(now(ours.allocate(ContainerId::generate())).is_err());
    assert!(claim.is_symlink());
}
