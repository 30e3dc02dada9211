//! The store by itself, on files of the test's own.

use std::path::Path;

use littlebox_types::ContainerId;

use super::*;

#[test]
fn every_migration_of_the_directory_is_known() {
    let mut files: Vec<_> =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
    files.sort();
    let known = MIGRATIONS.map(|(version, name, _)| format!("{version:04}_{name}.sql"));
    assert_eq!(files, known);
}

async fn open(dir: &Path, boot_id: &str) -> Store {
    Store::open(&dir.join("x.db"), 400, boot_id).await.unwrap()
}

fn told(container: Option<ContainerId>) -> Write {
    Write::Event(NewEvent {
        kind: "container.oom",
        subject: "x".into(),
        container,
        name: None,
        data: serde_json::json!({}),
    })
}

async fn numbers(store: &Store) -> Vec<u64> {
    let events = store.events(0, 100_000).await.unwrap();
    events.into_iter().map(|e| e.seq).collect()
}

#[tokio::test]
async fn a_flood_of_one_container_leaves_the_others_their_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "boot").await;
    let (quiet, loud) = (ContainerId::generate(), ContainerId::generate());
    for _ in 0..20 {
        store.commit(vec![told(Some(quiet))], false).await.unwrap();
    }
    store.commit(vec![told(None)], false).await.unwrap();
    for _ in 0..3000 {
        store.commit(vec![told(Some(loud))], false).await.unwrap();
    }
    let events = store.events(0, 100_000).await.unwrap();
    let of = |id: Option<ContainerId>| {
        let id = id.map(|id| id.to_string());
        events.iter().filter(|e| e.container_id == id).count()
    };
    assert_eq!(of(Some(quiet)), 20);
    assert_eq!(of(None), 1);
    assert!(of(Some(loud)) < 400 + 1024, "{}", of(Some(loud)));
    assert_eq!(events.last().map(|e| e.seq), Some(3021));
}

#[tokio::test]
async fn many_small_containers_lose_their_oldest_events_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "boot").await;
    for _ in 0..2048 {
        let id = Some(ContainerId::generate());
        store.commit(vec![told(id), told(id)], false).await.unwrap();
    }
    let numbers = numbers(&store).await;
    let last = *numbers.last().unwrap();
    assert_eq!(last, 4096);
    // Contiguous up to the newest.
    assert_eq!(
        numbers.len(),
        usize::try_from(last - numbers[0] + 1).unwrap()
    );
    assert!(numbers.len() < 400 + 2 * 1024);
}

#[tokio::test]
async fn numbers_go_on_in_the_same_boot_and_are_never_given_out_twice_in_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "one").await;
    for _ in 0..3 {
        store.commit(vec![told(None)], false).await.unwrap();
    }
    drop(store);
    // The daemon died: what it told is in the write-ahead log.
    let store = open(dir.path(), "one").await;
    store.commit(vec![told(None)], false).await.unwrap();
    assert_eq!(numbers(&store).await, [1, 2, 3, 4]);
    drop(store);
    // The power went, and took events with it that readers had seen.
    let store = open(dir.path(), "one").await;
    store.commit(vec![Write::Probe], true).await.unwrap();
    drop(store);
    let store = open(dir.path(), "two").await;
    assert!(*store.newest_event().borrow() > 4);
    store.commit(vec![told(None)], false).await.unwrap();
    let after = *numbers(&store).await.last().unwrap();
    assert!(after > 4 + 1000, "{after}");
    // An orderly end gives back what was reserved and not used.
    store.close().await.unwrap();
    drop(store);
    let store = open(dir.path(), "three").await;
    store.commit(vec![told(None)], false).await.unwrap();
    assert_eq!(*numbers(&store).await.last().unwrap(), after + 1);
}

#[tokio::test]
async fn more_events_than_were_reserved_are_reserved_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "one").await;
    let many = (0..10_000).map(|_| told(None)).collect();
    store.commit(many, false).await.unwrap();
    let last = *store.newest_event().borrow();
    assert_eq!(last, 10_000);
    drop(store);
    let store = open(dir.path(), "two").await;
    assert!(*store.newest_event().borrow() > last);
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), "one").await);
    let database = dir.path().join("x.db");
    let mut connection = options(&database).read_only(true).connect().await.unwrap();
    let refused = writer::Numbers::begin(&mut connection, 0, "one").await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn the_room_for_removals_is_taken_given_up_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "one").await;
    assert!(store.has_reserve());
    assert!(store.give_up_reserve());
    assert!(!store.has_reserve() && !store.give_up_reserve());
    store.restore_reserve();
    while !store.has_reserve() {
        tokio::task::yield_now().await;
    }
}
