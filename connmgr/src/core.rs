//! The pure half: connections, tags and time come in, who is to be closed comes out. No socket, no runtime, and no clock
//! but the one it is given.

mod book;
mod decaying;
mod dials;
mod evict;
mod hash;
mod order;
mod record;
mod report;
mod select;
mod shard;
mod time;
mod trim;

pub(crate) use book::Book;
pub(crate) use decaying::Definition;
pub(crate) use dials::Dials;
pub(crate) use evict::{EVICTED, Evictor, HardLimit, Newcomer, Room};
pub(crate) use order::{Mode, Rules, Seen};
pub(crate) use time::{Clock, Stamp};
pub(crate) use trim::{Step, Trimmer, excess};
