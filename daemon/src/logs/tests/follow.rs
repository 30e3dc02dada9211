//! Waiting for more.

use super::*;

#[tokio::test]
async fn follow_sees_lines_at_once_over_rotations_and_ends_when_the_writer_is_done() {
    let (_directory, path) = log_path();
    let (done, finished) = watch::channel(false);
    // The file does not exist yet.
    let mut follower = open(&path, From::Start).await;
    let reader = tokio::spawn(async move {
        let (records, lost) = collect(&mut follower, Mode::Follow(&finished)).await;
        (texts(&records), lost)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut writer = Writer::new(&path);
    let mut expected = Vec::new();
    for number in 0..200 {
        writer.line(&number.to_string());
        expected.push(number.to_string());
        if number % 20 == 7 {
            writer.rotate();
        }
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    done.send(true).unwrap();
    assert_eq!(reader.await.unwrap(), (expected, 0));
}

#[tokio::test]
async fn a_follower_is_woken_by_a_write() {
    let (_directory, path) = log_path();
    let mut writer = Writer::new(&path);
    let (_done, finished) = watch::channel(false);
    let mut follower = open(&path, From::End).await;
    let reader = tokio::spawn(async move {
        let chunk = follower.next(Mode::Follow(&finished)).await.unwrap();
        (chunk, Instant::now())
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let written = Instant::now();
    writer.line("hello");
    let (chunk, seen) = reader.await.unwrap();
    assert!(matches!(chunk, Chunk::Records(records) if texts(&records) == ["hello"]));
    // Well below the poll interval, so it was inotify.
    assert!(seen - written < Duration::from_millis(500));
}

#[tokio::test]
async fn a_directory_that_comes_later_is_found() {
    let (directory, _) = log_path();
    let path = directory.path().join("later/log");
    let (_done, finished) = watch::channel(false);
    let mut follower = open(&path, From::Start).await;
    let reader = tokio::spawn(async move { follower.next(Mode::Follow(&finished)).await.unwrap() });
    tokio::time::sleep(Duration::from_millis(20)).await;
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    Writer::new(&path).line("late");
    assert!(
        matches!(reader.await.unwrap(), Chunk::Records(records) if texts(&records) == ["late"])
    );
}

#[tokio::test]
async fn a_dropped_sender_counts_as_done() {
    let (_directory, path) = log_path();
    Writer::new(&path).line("last");
    let (done, finished) = watch::channel(false);
    drop(done);
    let mut follower = open(&path, From::Start).await;
    let (records, _) = collect(&mut follower, Mode::Follow(&finished)).await;
    assert_eq!(texts(&records), ["last"]);
}

#[tokio::test]
async fn without_inotify_a_follower_polls() {
    let (_directory, path) = log_path();
    let used_up = std::io::Error::from(rustix::io::Errno::MFILE);
    let watcher = Watcher::of(Err(used_up));
    let (_done, finished) = watch::channel(false);
    let mut follower = Follower::open(&watcher, path.clone(), From::Start)
        .await
        .unwrap();
    let reader = tokio::spawn(async move { follower.next(Mode::Follow(&finished)).await.unwrap() });
    Writer::new(&path).line("polled");
    assert!(
        matches!(reader.await.unwrap(), Chunk::Records(records) if texts(&records) == ["polled"])
    );
}

#[tokio::test]
async fn one_watcher_serves_many_followers() {
    let (directory, _) = log_path();
    let watcher = Watcher::new();
    let (done, finished) = watch::channel(false);
    let mut readers = Vec::new();
    for number in 0..50 {
        let path = directory.path().join(format!("{}.log", number % 10));
        let mut follower = Follower::open(&watcher, path, From::Start).await.unwrap();
        let finished = finished.clone();
        readers.push(tokio::spawn(async move {
            texts(&collect(&mut follower, Mode::Follow(&finished)).await.0)
        }));
    }
    for number in 0..10 {
        Writer::new(&directory.path().join(format!("{number}.log"))).line("x");
    }
    done.send(true).unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), ["x"]);
    }
}

#[tokio::test]
async fn a_follower_beside_a_racing_writer_loses_nothing() {
    let (_directory, path) = log_path();
    let (done, finished) = watch::channel(false);
    let watcher = Watcher::new();
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut follower = Follower::open(&watcher, path.clone(), From::Start)
            .await
            .unwrap();
        let finished = finished.clone();
        readers.push(tokio::spawn(async move {
            collect(&mut follower, Mode::Follow(&finished)).await
        }));
    }
    let log = path.clone();
    let written = tokio::task::spawn_blocking(move || {
        let mut writer = Writer::new(&log);
        let mut total = 0;
        for number in 0..20_000u32 {
            total = writer.write(LogStream::Stdout, false, &number.to_le_bytes());
            if writer.len > 20_000 {
                writer.rotate();
            }
        }
        total
    })
    .await
    .unwrap();
    done.send(true).unwrap();
    for reader in readers {
        let (records, lost) = reader.await.unwrap();
        assert_eq!((records.len(), lost), (20_000, 0));
        for (number, record) in records.iter().enumerate() {
            assert_eq!(
                record.payload[..],
                u32::try_from(number).unwrap().to_le_bytes()
            );
        }
        assert_eq!(records.last().unwrap().position, written);
    }
}
