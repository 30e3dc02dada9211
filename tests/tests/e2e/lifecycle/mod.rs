//! Create, start, stop, kill, restart, pause, rename, wait, remove: what each does from each state.

mod end;
mod object;
mod refused;
mod start;
mod together;
mod wait;
