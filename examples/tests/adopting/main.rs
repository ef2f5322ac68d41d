//! What "Adopting it in an existing program" says, line by line, on programs as rust-libp2p's
//! examples are: each is that example with the one line that the knock takes, and what else it
//! then needs.

#[cfg(test)]
mod chat;
#[cfg(test)]
mod common;
#[cfg(test)]
mod file_sharing;
#[cfg(test)]
mod key_value_store;
#[cfg(test)]
mod ping;
#[cfg(test)]
mod rendezvous;
