//! What a listener does about those who have not shown who they are. Pure: bytes, time and chance come in, actions go
//! out.
//!
//! | file | what it decides |
//! | --- | --- |
//! | `pool` on `places` | which sockets are held, until when, and who goes when there is no room |
//! | `replay` on `memory` and `forgotten` | whether a knock has been answered before |
//! | `budget` | how much key work is done, and for whom first |
//! | `known` | which prefixes have authenticated lately, which v2 knocks are known to be good |
//! | `summary` | what the operator hears of all this |
//! | `prefix`, `limits` | where a socket comes from; numbers that are worked out from the machine and the installation |
//!
//! **The rule.** What is visible from outside depends on time and on the other end's FIN or RST, never on the bytes it
//! sent. Every socket is closed at one and the same time after it was accepted, unless its owner ends it first, or it
//! is evicted, by chance and by how much its prefix holds.

pub(crate) mod answering;
pub(crate) mod budget;
mod forgotten;
pub(crate) mod known;
pub(crate) mod limits;
mod memory;
mod places;
pub(crate) mod pool;
pub(crate) mod prefix;
pub(crate) mod replay;
pub(crate) mod summary;

#[cfg(test)]
mod grid;
#[cfg(test)]
mod simulation;
