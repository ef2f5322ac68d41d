//! The tools against listeners of four kinds: a leaky one made for the purpose, ours, stock libp2p, the Go original.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod beside;
#[cfg(test)]
mod campaign;
#[cfg(test)]
mod in_path;
#[cfg(test)]
mod leaky;
