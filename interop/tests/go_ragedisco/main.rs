//! Groups of real Go ragedisco nodes (libocr, unmodified, both stacks) and ours that find themselves: each node is told one
//! address, that of the bootstrapper, and the keys of all.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod group;
