//! What is promised to be kept survives the other end: a Swarm as libp2p makes it, which wants no
//! peer.

#[cfg(test)]
mod common;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod defaults;
#[cfg(test)]
mod idle;
