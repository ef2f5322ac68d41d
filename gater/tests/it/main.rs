//! The gate in real swarms. Which check of go-libp2p each test ports stands in `tests/README.md`.

mod cells;
mod common;
mod counting;
mod gating;
mod goodbyes;
mod names;
mod nodes;
mod recorder;
mod side_by_side;
mod sweeps;
mod tightening;
mod wire;
