//! The host from outside, over real sockets: one binary, one module for each side of it.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod attacker;
#[cfg(test)]
mod common;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod swarms;
#[cfg(test)]
mod unreached;
#[cfg(test)]
mod user_code;
#[cfg(test)]
mod window;
