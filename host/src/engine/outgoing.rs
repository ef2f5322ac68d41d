//! What a connection writes next: many small frames together, or the payload of a large one where it lies.

use super::frame::Header;
use bytes::{Buf as _, Bytes};

/// Small frames that are gathered before they are written: a record of TLS.
const GATHER: usize = 16 << 10;

/// Payloads up to this are copied.
const COPIED: usize = 4 << 10;

/// Bytes on their way to a connection.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    gathered: Vec<u8>,
    written: usize,
    /// Behind what was gathered.
    payload: Bytes,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.gathered.len() && self.payload.is_empty()
    }

    /// Whether another frame should be added before anything is written.
    pub(crate) fn has_room(&self) -> bool {
        self.payload.is_empty() && self.gathered.len() < GATHER
    }

    /// The payload, where it was copied and is not needed any more.
    pub(crate) fn push(&mut self, header: &Header, payload: Bytes) -> Option<Bytes> {
        header.encode(&mut self.gathered);
        if payload.len() > COPIED {
            self.payload = payload;
            None
        } else {
            self.gathered.extend_from_slice(&payload);
            Some(payload)
        }
    }

    /// What to write. Empty only if there is nothing.
    pub(crate) fn chunk(&self) -> &[u8] {
        match &self.gathered[self.written..] {
            [] => &self.payload,
            gathered => gathered,
        }
    }

    /// The payload, once all of it is written.
    pub(crate) fn advance(&mut self, n: usize) -> Option<Bytes> {
        if self.written < self.gathered.len() {
            self.written += n;
        } else {
            self.payload.advance(n);
        }
        // An idle connection holds no buffer.
        self.is_empty().then(|| self.take())
    }

    /// Forgets everything. The payload is the caller's to drop.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(self).payload
    }
}
