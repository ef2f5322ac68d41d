//! Ten thousand probes at our own listener, in a program of their own so that no other test is in the way.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod ten_thousand;
