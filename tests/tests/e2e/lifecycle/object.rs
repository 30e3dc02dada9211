//! A container as an object of the API: names, versions, lists.

use littlebox_tests::prelude::*;

#[test]
fn rename_frees_the_old_name_and_takes_the_new_one() {
    let t = Bed::new();
    let container = t.create(&with(busybox(&["true"]), json!({"name": "old"})));
    let patch = Request::new(Method::Patch, "/v1/containers/old").json(&json!({"name": "new"}));
    let renamed: Container = t.send(&patch).expect(200).json();
    assert_eq!(name(&renamed), "new");
    assert_eq!(renamed.summary.id, container.summary.id);
    assert!(renamed.summary.generation > container.summary.generation);
    t.get("/v1/containers/old")
        .problem(404, "container_not_found");
    assert_eq!(id(&t.inspect("new")), id(&container));
    let other = t.create(&with(busybox(&["true"]), json!({"name": "old"})));
    let clash = Request::new(Method::Patch, format!("/v1/containers/{}", id(&other)))
        .json(&json!({"name": "new"}));
    t.send(&clash).problem(409, "name_in_use");
    let renames = t
        .events()
        .into_iter()
        .find(|e| e.kind == "container.renamed");
    assert_eq!(
        renames.expect("an event").data.get("old_name"),
        Some(&json!("old"))
    );
    t.finish();
}

#[test]
fn if_match_guards_a_patch_and_if_none_match_saves_a_read() {
    let t = Bed::new();
    let c = id(&t.create(&busybox(&["true"])));
    let path = format!("/v1/containers/{c}");
    let etag = t.get(&path).header("etag").expect("an ETag").to_owned();
    let unchanged = Request::new(Method::Get, &path).header("if-none-match", &etag);
    let _empty = t.send(&unchanged).expect(304);
    let stale = Request::new(Method::Patch, &path)
        .header("if-match", "\"0\"")
        .json(&json!({"labels": {"a": "b"}}));
    t.send(&stale).problem(412, "precondition_failed");
    let fresh = Request::new(Method::Patch, &path)
        .header("if-match", &etag)
        .json(&json!({"labels": {"a": "b"}}));
    let patched: Container = t.send(&fresh).expect(200).json();
    assert_eq!(patched.summary.labels["a"], "b");
    t.send(&fresh).problem(412, "precondition_failed");
    t.finish();
}

#[test]
fn an_idempotency_key_makes_one_container_of_two_requests() {
    let t = Bed::new();
    let ask = |config: &Value| {
        let request = Request::new(Method::Post, "/v1/containers?start=true")
            .header("idempotency-key", "the-key")
            .json(config);
        t.send(&request)
    };
    let first: Container = ask(&sleeper_config()).expect(201).json();
    let second: Container = ask(&sleeper_config()).expect(201).json();
    assert_eq!(first.summary.id, second.summary.id);
    assert_eq!(t.list().len(), 1);
    ask(&busybox(&["true"])).problem(409, "idempotency_conflict");
    t.finish();
}

#[test]
fn ids_names_and_prefixes_name_a_container() {
    let t = Bed::new();
    let container = t.create(&with(busybox(&["true"]), json!({"name": "a.name-1_x"})));
    let c = id(&container);
    let last_block = c.rsplit('-').next().expect("a UUID has blocks");
    for reference in [c.as_str(), "a.name-1_x", last_block, &c[..30]] {
        assert_eq!(id(&t.inspect(reference)), c, "{reference}");
    }
    let _second = t.create(&busybox(&["true"]));
    // Both were made within the same minutes: the first digits are time.
    t.get(&format!("/v1/containers/{}", &c[..6]))
        .problem(400, "ambiguous_reference");
    t.finish();
}

#[test]
fn lists_filter_page_and_choose_fields() {
    let t = Bed::new();
    for n in 0..5 {
        let config = with(
            busybox(&["true"]),
            json!({"name": format!("web-{n}"), "labels": {"tier": if n < 2 { "front" } else { "back" }}}),
        );
        t.create(&config);
    }
    let running = t.start(&with(sleeper_config(), json!({"name": "runner"})));
    let names = |query: &str| -> Vec<String> {
        let page: Page<ContainerSummary> =
            t.get(&format!("/v1/containers?{query}")).expect(200).json();
        page.items.iter().map(|c| c.name.to_string()).collect()
    };
    assert_eq!(names("filter=state=running"), ["runner"]);
    assert_eq!(names("filter=label=tier=front"), ["web-0", "web-1"]);
    assert_eq!(names("filter=label=tier").len(), 5);
    assert_eq!(names("filter=name=web&filter=label=tier=back").len(), 3);
    assert_eq!(names(&format!("filter=id={}", id(&running))), ["runner"]);

    let mut seen = Vec::new();
    let mut cursor = String::new();
    for _ in 0..10 {
        let page: Page<ContainerSummary> = t
            .get(&format!("/v1/containers?limit=2{cursor}"))
            .expect(200)
            .json();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.iter().map(|c| c.name.to_string()));
        match page.next {
            Some(next) => cursor = format!("&cursor={}", encode(&next)),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6);
    assert_eq!(seen[0], "web-0", "oldest first");

    let page = t
        .get("/v1/containers?fields=name,state&limit=1")
        .expect(200)
        .value();
    let fields: BTreeSet<&str> = page["items"][0]
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(fields, BTreeSet::from(["name", "state"]));
    t.finish();
}
