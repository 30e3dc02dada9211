//! Small grammars of the API: signals, durations, names, ids.
#![no_main]

use littlebox_types::{ContainerId, Name};
use libfuzzer_sys::fuzz_target;
use littleboxd::spec::{parse_signal, signal_name};
use littleboxd::time::parse_duration;

fuzz_target!(|text: &str| {
    let _ = parse_duration(text);
    if let Some(signal) = parse_signal(text) {
        assert!((1..=64).contains(&signal));
        assert_eq!(parse_signal(&signal_name(signal)), Some(signal));
    }
    let name = text.parse::<Name>();
    let id = text.parse::<ContainerId>();
    assert!(name.is_err() || id.is_err(), "a name that is an id");
});
