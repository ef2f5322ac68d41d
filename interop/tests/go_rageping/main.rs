//! The real Go rageping (libocr, unmodified) and ours measure the way to each other.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod latency;
