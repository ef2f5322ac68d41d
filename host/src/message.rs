//! What comes out of a stream.

use crate::engine::frame::RequestId;
use bytes::Bytes;

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
