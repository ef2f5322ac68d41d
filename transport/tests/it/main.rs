//! The transport from outside, over real sockets: one binary, one module for each side of it.

mod closing;
mod common;
mod dialing;
mod first_flight;
mod hostile;
mod inner_transports;
mod listening;
mod metrics;
mod purity;
mod swarm;
