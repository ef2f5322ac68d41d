//! What a stream has received and not yet handed on.

use crate::records::{Content, MAX_PLAIN, Records};
use futures::io::AsyncRead;
use futures::ready;
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What is read at once: a full backlog of ours, which is four records, and what precedes or follows it. In 64 KiB the
/// fourth would not fit, and its first part would have to be moved each time.
const ROOM: usize = 5 * MAX_PLAIN;

thread_local! {
    /// Room that nobody needs at the moment. A stream borrows it for as long as it has something to hand on, so that
    /// an idle one holds none and a busy one does not ask the allocator again and again.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Sealed bytes and, opened where they lay, those of one record that are in clear.
///
/// An idle stream holds nothing here; one that waits for the rest of a record holds that record's first part.
pub(crate) struct Inbound {
    /// [`ROOM`] long, or no longer than what it holds.
    bytes: Vec<u8>,
    plain: Range<usize>,
    sealed: Range<usize>,
    ended: bool,
}

/// What [`Inbound::open`] found.
pub(crate) enum Found {
    /// [`Inbound::data`] is not empty.
    Data,
    /// The other end's last word.
    End,
    /// Nothing: more has to be read.
    Nothing,
}

impl Inbound {
    /// Starts with what came behind the handshake.
    pub(crate) fn new(sealed: Vec<u8>) -> Self {
        Self {
            plain: 0..0,
            sealed: 0..sealed.len(),
            bytes: sealed,
            ended: false,
        }
    }

    /// Opens records until there is data, if there is none.
    pub(crate) fn open(&mut self, records: &mut Records) -> Result<Found, rustls::Error> {
        while self.plain.is_empty() {
            if self.ended {
                return Ok(Found::End);
            }
            let start = self.sealed.start;
            let Some(record) = records.open(&mut self.bytes[self.sealed.clone()])? else {
                return Ok(Found::Nothing);
            };
            self.sealed.start += record.size;
            match record.content {
                Content::Data(range) => self.plain = start + range.start..start + range.end,
                Content::End => self.ended = true,
                Content::Control => {}
            }
        }
        Ok(Found::Data)
    }

    /// Whether the other end has said its last word.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// What is in clear and was not handed on: the rest of one record.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.plain.clone()]
    }

    /// So many bytes of [`Inbound::data`] were handed on.
    pub(crate) fn consume(&mut self, n: usize) {
        self.plain.start = self.plain.end.min(self.plain.start + n);
        if self.plain.is_empty() && self.sealed.is_empty() {
            // At once: the next stream on this thread would have to ask the allocator.
            give_back(std::mem::take(&mut self.bytes));
            (self.plain, self.sealed) = (0..0, 0..0);
        }
    }

    /// Reads more, once [`Inbound::open`] has found nothing. Ready with the number of bytes, 0 at the end.
    pub(crate) fn poll_fill<S>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        debug_assert!(self.plain.is_empty(), "data is handed on before more is read");
        let waiting = self.sealed.len();
        let mut room = if self.bytes.len() == ROOM {
            self.bytes.copy_within(self.sealed.clone(), 0);
            std::mem::take(&mut self.bytes)
        } else {
            let mut room = SPARE.take();
            if room.len() < ROOM {
                room = vec![0; ROOM];
            }
            room[..waiting].copy_from_slice(&self.bytes[self.sealed.clone()]);
            room
        };
        let polled = Pin::new(io).poll_read(cx, &mut room[waiting..]);
        let read = match &polled {
            Poll::Ready(Ok(n)) => *n,
            _ => 0,
        };
        self.plain = 0..0;
        self.sealed = 0..waiting + read;
        if read > 0 {
            self.bytes = room;
        } else {
            self.bytes = room[..waiting].to_vec();
            give_back(room);
        }
        Poll::Ready(Ok(ready!(polled)?))
    }
}

fn give_back(room: Vec<u8>) {
    if room.len() == ROOM {
        SPARE.set(room);
    }
}
