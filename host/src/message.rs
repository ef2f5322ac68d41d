//! What goes into a stream, and what comes out of it.

use crate::engine::frame::RequestId;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// The bytes of a message that is to be sent. Everything that is text or bytes becomes one: what is
/// owned as it is, what is borrowed by a copy.
///
/// ```
/// use knock_host::{Bytes, Payload};
///
/// let name = String::from("alice");
/// for payload in [Payload::from(&name), "alice".into(), (&name[..]).into(), b"alice".into(), name.into_bytes().into()] {
///     assert_eq!(Bytes::from(payload), "alice");
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload(Bytes);

macro_rules! payload {
    ($($owned:ty),*; $($borrowed:ty),*) => {
        $(impl From<$owned> for Payload {
            fn from(owned: $owned) -> Self {
                Self(owned.into())
            }
        })*
        $(impl From<&$borrowed> for Payload {
            fn from(borrowed: &$borrowed) -> Self {
                Self(Bytes::copy_from_slice(borrowed.as_ref()))
            }
        })*
    };
}

payload!(Bytes, BytesMut, Vec<u8>, Box<[u8]>, String; str, String, [u8], Vec<u8>);

impl<const N: usize> From<[u8; N]> for Payload {
    fn from(bytes: [u8; N]) -> Self {
        Self(Bytes::copy_from_slice(&bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<&Bytes> for Payload {
    fn from(bytes: &Bytes) -> Self {
        Self(bytes.clone())
    }
}

impl From<Cow<'_, str>> for Payload {
    fn from(text: Cow<'_, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl From<Payload> for Bytes {
    fn from(payload: Payload) -> Self {
        payload.0
    }
}

/// What became of a message that was given to a stream. It says nothing of the other end: a message
/// that waits can be lost with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sent {
    /// It waits to be written, and none was lost for it.
    Queued,
    /// It waits to be written, in a buffer that was full: the message that had waited longest is
    /// lost.
    Displaced,
    /// It is lost: it is longer than a message of the stream may be.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The greatest length in bytes.
        longest: usize,
    },
    /// It is lost: the stream is closed.
    Closed,
}

impl Sent {
    /// Whether it waits to be written.
    pub const fn is_queued(self) -> bool {
        matches!(self, Self::Queued | Self::Displaced)
    }
}

/// What [`Stream2`](crate::Stream2) received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// A message.
    Plain(Bytes),
    /// A request. Whoever answers does so with [`Stream2::respond`](crate::Stream2::respond), in the time and size that the
    /// other end expects.
    Request {
        /// What the answer refers to.
        handle: RequestHandle,
        /// What is asked.
        payload: Bytes,
    },
    /// The answer to a request of ours. Which one has to show in the payload.
    Response(Bytes),
}

impl Inbound {
    /// The content, whatever it is.
    pub fn payload(&self) -> &Bytes {
        match self {
            Self::Plain(payload) | Self::Request { payload, .. } | Self::Response(payload) => payload,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.payload().len()
    }
}

/// What a response refers to. Good for one response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestHandle(pub(crate) RequestId);
