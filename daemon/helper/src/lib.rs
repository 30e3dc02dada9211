//! littlebox's helper: the synchronous side of the engine.

pub mod protocol;
