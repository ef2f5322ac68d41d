//! Many streams over one connection: [yamux], written for this transport.
//!
//! Speaks with every implementation of the [specification][yamux]; what rust-libp2p's own and this one do alike, they do
//! alike here (256 streams that nobody has acknowledged, 512 streams in all, windows that grow with the round trip). What
//! it is for:
//!
//! - A write goes from the caller's buffer into the TLS record, and what is received from the record into the stream, each
//!   byte copied once. There is no queue between a stream and its connection and no allocation for a frame, and the task that writes
//!   seals: 32 streams use two cores.
//! - An idle connection holds no buffer and is never pinged. A round trip is measured when a window is about to grow.
//! - Reading tells the ends of a stream apart: closed by the other end (`Ok(0)`), reset (`ConnectionReset`), or the
//!   connection is gone (anything else).
//!
//! [yamux]: https://github.com/hashicorp/yamux/blob/master/spec.md

pub(crate) mod chunks;
mod connection;
#[cfg(feature = "internals")]
pub(crate) mod end;
pub(crate) mod frame;
pub(crate) mod session;
mod stream;
mod window;

pub(crate) use connection::Connection;
pub use stream::Stream;

use window::INITIAL;

/// How many streams, and how much of what they carry may wait. Of every connection.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) max_substreams: usize,
    pub(crate) max_stream_window: u32,
    pub(crate) max_connection_window: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_substreams: 512,
            max_stream_window: 16 << 20,
            max_connection_window: 64 << 20,
        }
    }
}

impl Config {
    /// Streams that may be open at once, of both ends together. Default 512. A stream that the other end opens beyond it
    /// is reset; opening one of ours waits until another ends.
    pub fn with_max_substreams(mut self, streams: usize) -> Self {
        self.max_substreams = streams;
        self
    }

    /// Bytes that the other end may have sent on one stream and nobody has read here. Default 16 MiB, and never less than
    /// the 256 KiB that every stream starts with. It is reached only by a stream that carries so much within two
    /// round trips.
    pub fn with_max_stream_window(mut self, bytes: u32) -> Self {
        self.max_stream_window = bytes.max(INITIAL);
        self
    }

    /// What the windows of all streams may have together beyond the 256 KiB each that they start with. Default 64 MiB. A
    /// peer can thus make a connection hold `256 KiB × streams + bytes`, 192 MiB unless changed, times two in the worst
    /// case, if nobody reads what it sends.
    pub fn with_max_connection_window(mut self, bytes: u32) -> Self {
        self.max_connection_window = bytes;
        self
    }
}

/// What the other end did that the specification does not allow. Ends the connection, and is the source of the
/// [`std::io::Error`] that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The only version is 0.
    #[error("the other end speaks version {0} of yamux; there is only 0")]
    Version(u8),
    /// There are four kinds, 0 to 3.
    #[error("the other end sent a frame of the unknown kind {0}")]
    Kind(u8),
    /// Data, or credit, for the connection itself.
    #[error("the other end sent data for no stream")]
    NotAStream,
    /// The dialer's streams have odd numbers, the listener's even ones.
    #[error("the other end opened stream {stream}, a number that is ours")]
    NotYours {
        /// Its number.
        stream: u32,
    },
    /// A stream that is there cannot be opened.
    #[error("the other end opened stream {stream} twice")]
    Reopened {
        /// Its number.
        stream: u32,
    },
    /// More data than was granted.
    #[error("the other end sent more on stream {stream} than it was granted")]
    WindowExceeded {
        /// Its number.
        stream: u32,
    },
    /// More credit than a number of 32 bits holds.
    #[error("the other end granted more on stream {stream} than there is")]
    WindowOverflow {
        /// Its number.
        stream: u32,
    },
    /// Data after the end of the stream.
    #[error("the other end sent data on stream {stream} after its end")]
    DataAfterEnd {
        /// Its number.
        stream: u32,
    },
}

#[cfg(test)]
mod tests;
