//! The tools that attack a listener, as strangers and insiders would: see the README. For one's own listeners only.
//!
//! A target is an address, and a process id where its memory and CPU time are of interest, so every tool works against
//! any TCP listener. Each tool is a module here and a small program in `src/bin`; the tests use the modules.

// What is sent: seeded bytes, contents, the grid of probes; recorded first flights; the outer box of a sealed knock.
pub mod capture;
pub mod content;
pub mod gate;
pub mod grid;
pub mod rng;

// What came of it, judged without a socket.
pub mod classes;
pub mod stats;

// The tools.
pub mod cells;
pub mod flood;
pub mod honest;
pub mod inpath;
pub mod probe;
pub mod replay;
pub mod scan;
pub mod sweep;
pub mod target;

// Whole scenarios, in child processes.
pub mod campaign;

// What they share: source addresses, pacing, the operating system, the least that drives a muxer.
pub mod muxer;
pub mod pace;
pub mod source;
pub mod sys;
