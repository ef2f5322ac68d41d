//! The transport from outside, over real sockets: one binary, one module for each side of it.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
#[cfg(all(feature = "internals", feature = "metrics"))]
mod attacks;
#[cfg(test)]
mod closing;
#[cfg(test)]
mod common;
#[cfg(test)]
mod dialing;
#[cfg(test)]
mod doors;
#[cfg(test)]
mod fast_open;
#[cfg(test)]
mod first_flight;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod inner_transports;
#[cfg(test)]
mod listening;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod migration;
#[cfg(test)]
mod purity;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod swarm;
#[cfg(test)]
mod user_code;
