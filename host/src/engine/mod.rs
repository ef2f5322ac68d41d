//! The pure core: bytes and time come in, frames and messages go out. No socket, no clock, no runtime; chance comes from
//! a generator that the caller seeds.

pub(crate) mod bucket;
pub(crate) mod dial;
pub(crate) mod frame;
pub(crate) mod id;
pub(crate) mod memory;
pub(crate) mod outgoing;
pub(crate) mod peer;
pub(crate) mod responses;
pub(crate) mod slots;
pub(crate) mod time;
pub(crate) mod unreached;
