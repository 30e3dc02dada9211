//! Two clients at once.

use littlebox_tests::prelude::*;

#[test]
fn two_clients_starting_the_same_container_get_one_start() {
    let t = Bed::new();
    for _ in 0..5 {
        let c = id(&t.create(&sleeper_config()));
        let path = format!("/v1/containers/{c}/start");
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (client, path) = (t.client.clone(), path.clone());
                std::thread::spawn(move || client.send(&Request::new(Method::Post, path)))
            })
            .collect();
        let answers: Vec<u16> = clients
            .into_iter()
            .map(|c| c.join().unwrap().status())
            .collect();
        assert_eq!(
            answers.iter().filter(|s| **s == 200).count(),
            1,
            "{answers:?}"
        );
        assert!(
            answers.iter().all(|s| matches!(s, 200 | 409)),
            "{answers:?}"
        );
        t.remove(&c);
    }
    t.finish();
}

#[test]
fn two_clients_removing_the_same_container_remove_it_once() {
    let t = Bed::new();
    for _ in 0..5 {
        let container = t.sleeper();
        let path = format!("/v1/containers/{}?force=true&wait=20s", id(&container));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (client, path) = (t.client.clone(), path.clone());
                std::thread::spawn(move || client.send(&Request::new(Method::Delete, path)))
            })
            .collect();
        for client in clients {
            let response = client.join().unwrap();
            assert!(
                matches!(response.status(), 204 | 404),
                "{} {}",
                response.status(),
                response.text()
            );
        }
        let removed = t.events_of(&container);
        let removed = removed.iter().filter(|k| *k == "container.removed").count();
        assert_eq!(removed, 1);
    }
    t.finish();
}

#[test]
fn start_and_remove_at_once_end_in_one_of_the_two_orders() {
    let t = Bed::new();
    for _ in 0..8 {
        let c = id(&t.create(&sleeper_config()));
        let start = Request::new(Method::Post, format!("/v1/containers/{c}/start"));
        let remove = Request::new(
            Method::Delete,
            format!("/v1/containers/{c}?force=true&wait=20s"),
        );
        let client = t.client.clone();
        let starter = std::thread::spawn(move || client.send(&start));
        let removed = t.send(&remove).status();
        let started = starter.join().unwrap().status();
        assert!(matches!(started, 200 | 404 | 409), "start {started}");
        assert_eq!(removed, 204);
        t.get(&format!("/v1/containers/{c}"))
            .problem(404, "container_not_found");
    }
    t.finish();
}
