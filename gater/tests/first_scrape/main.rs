//! What a registry shows before anything has happened: every counter with every label, at zero, as
//! Prometheus' own parser takes it.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.
#![cfg(feature = "metrics")]

#[cfg(test)]
mod scrape;
