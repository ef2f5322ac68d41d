//! The gate in real swarms. Which check of go-libp2p each test ports stands in `tests/README.md`.

mod cells;
mod common;
mod nodes;
mod recorder;
mod wire;
