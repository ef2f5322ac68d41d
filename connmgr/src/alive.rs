//! The protocol that keeps a connection alive at both ends and finds out whether the other end
//! still answers. The manager and wanted peers speak it for the connections that they keep.
//!
//! A connection handler decides for its own end only. The other end closes a connection that
//! carries no stream when its Swarm's idle timeout is over, 10 s by default. A stream restarts that
//! time: one that is open, or one whose protocol is being negotiated, even if it is refused. So
//! each kept connection is *asked*: this end opens a stream for [`PROTOCOL`].
//!
//! - An end that knows the protocol accepts. The stream stays open and carries nothing. While it is
//!   open both ends keep the connection. A later question is one byte on that stream, which comes
//!   back.
//! - Any other end refuses, which restarts its idle timeout. It is asked again before that is over.
//!
//! An end holds at most 4 such streams for the other end of one connection; the oldest gives way.
//!
//! # On the wire
//!
//! The end that accepts sends one byte at once. From then on the end that asked may send a byte of
//! any value at any time, and the other sends each back. Either end lets go by closing or resetting
//! the stream.

mod echo;
mod line;
mod protocol;
mod under_way;

// Pure.
mod quiet;
mod schedule;

pub(crate) use line::{Alive, Told};
pub use protocol::{Accept, Ask};
pub(crate) use quiet::Quiet;
pub(crate) use schedule::{Question, Schedule};
pub(crate) use under_way::UnderWay;

use libp2p_swarm::StreamProtocol;

/// What is asked for. Short, as it is sent with every question.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/connmgr/alive/1");

/// What the end that asks says first on its stream: multistream-select's header, and the protocol.
pub(crate) const PREAMBLE: &[u8] = b"\x13/multistream/1.0.0\n\x11/connmgr/alive/1\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preamble_is_the_protocols() {
        let line = |text: &str| [&[text.len() as u8 + 1], text.as_bytes(), b"\n"].concat();
        let expected = [line("/multistream/1.0.0"), line(PROTOCOL.as_ref())].concat();
        assert_eq!(PREAMBLE, expected);
    }
}
