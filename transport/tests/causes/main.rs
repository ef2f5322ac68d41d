//! Why a peer is not reached: what the dialer's error says, and what both ends log. A binary of its
//! own, as what is logged is the process's.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may
//! unwrap.

#![cfg(feature = "tokio")]

#[cfg(test)]
#[allow(dead_code, reason = "what the other binary needs as well")]
#[path = "../it/common.rs"]
mod common;
#[cfg(test)]
mod logged;

#[cfg(test)]
mod told;
