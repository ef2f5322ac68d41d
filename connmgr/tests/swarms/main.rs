//! The manager in real Swarms: over the knock transport, TCP with Noise and yamux, and QUIC.

#[cfg(test)]
mod common;
#[cfg(test)]
mod hard_limit;
#[cfg(test)]
mod keep_alive;
#[cfg(test)]
mod names;
#[cfg(test)]
mod punching;
#[cfg(test)]
mod trimming;
