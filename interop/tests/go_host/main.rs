//! The real Go hosts of ragep2p (libocr, unmodified: the production stack and the newer one) with ours, over the same streams.
//!
//! Each test starts a Go host as a process of its own, which is told what to do and reports what arrived.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod go;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod streams;
