//! Version 3, the sealed knock: uniform bytes to whoever does not know the listener's PeerID (and, in a private network,
//! its secret), bound to its time, to its listener and to the TLS flight it carries.
//!
//! | offset | length | content |
//! | --- | --- | --- |
//! | 0 | 12 | nonce |
//! | 12 | 192 | box: ChaCha20-Poly1305 over the first message of `Noise_IKpsk1_25519_ChaChaPoly_BLAKE2s` |
//! | 204 | n + 16 | the dialer's complete first TLS flight, ChaCha20-Poly1305 under a key from inside the box |
//!
//! The box is for cheapness and looks: without it every scanner would cost two Diffie-Hellman, and the ephemeral key in
//! front of a Noise message can be told from noise. The Noise message says who knocks, when and for what
//! (`payload.rs`). That the flight is sealed too keeps anybody else's ClientHello from standing behind a captured knock.
//!
//! Everything a knock is made from comes in: identity, time, [`Fresh`] randomness, flight. The listener opens it in the
//! steps of [`Gate`], [`Boxed`] and [`Opened`]; what stands between those steps, budgets and the replay set, is not here.

mod aead;
mod hello;
mod network;
mod noise;
mod open;
mod payload;
mod seal;

pub use aead::TAG;
pub use hello::check as check_hello;
pub use network::{Network, NetworkError};
pub use noise::{StaticKey, StaticKeyError};
pub use open::{Boxed, Gate, Late, Opened, Refused, check_time};
#[cfg(feature = "internals")]
pub use seal::rewrap;
pub use seal::{Callee, Fresh, SealError, seal, seal_payload, wrap};

/// The size in bytes of all that comes before the flight.
pub const HEAD: usize = 12 + noise::SIZE + TAG;

/// The longest first flight in bytes, before it is sealed. That of X25519MLKEM768 has some 1,400.
pub const MAX_FLIGHT: usize = 4096;

/// How many milliseconds the dialer's clock may differ from the listener's, either way.
pub const MAX_SKEW_MS: u64 = 120_000;

#[cfg(test)]
mod statistics;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod uniformity;
#[cfg(test)]
mod vectors;
