//! The real Go ragep2p (libocr, unmodified, pinned in `go/ragep2p-peer/go.mod`) against our knock and TLS.
//!
//! Each test starts a Go host as a process of its own. That it took us for its peer is read off its own counters, and
//! off the frame it then sends: the opening of the stream that both of us know.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod meeting;
