//! Small grammars of the API: durations, names, ids, and the values that are written as text.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use littlebox_types::{
    ContainerId, DirectoryMode, Name, NamespaceSource, NamespaceType, Propagation, Signal, Umask,
    UserSpec,
};
use littleboxd::time::parse_duration;

/// What is read from a text is written so that it is read back.
fn survives<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().ok(), Some(value));
    }
}

fuzz_target!(|text: &str| {
    let _ = parse_duration(text);
    survives::<DirectoryMode>(text);
    survives::<NamespaceSource>(text);
    survives::<NamespaceType>(text);
    survives::<Propagation>(text);
    survives::<Signal>(text);
    survives::<Umask>(text);
    survives::<UserSpec>(text);
    let name = text.parse::<Name>();
    let id = text.parse::<ContainerId>();
    assert!(name.is_err() || id.is_err(), "a name that is an id");
});
