//! What a peer that does what it should not costs the others: time, and memory.
//!
//! A binary of its own, so that no other test runs beside the measurements.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
#[path = "../it/attacker.rs"]
mod attacker;
#[cfg(test)]
#[allow(dead_code, reason = "the other binary needs all of it")]
#[path = "../it/common.rs"]
mod common;
#[cfg(test)]
mod latency;
#[cfg(test)]
mod memory;
