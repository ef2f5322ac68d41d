//! The connection's side: frames that come in.

use super::{Peer, REMOTE_STREAMS, TELL_AGAIN};
use crate::after::Note;
use crate::engine::frame::{Header, Kind, Piece, RequestId, Violation};
use crate::engine::id::StreamId;
use crate::message::{Inbound, RequestHandle};
use bytes::Bytes;
use std::time::Instant;

/// Where the payload of the frame at hand goes.
pub(super) enum Target {
    Nothing,
    /// The name of a stream that the other end opens.
    Name(StreamId, Vec<u8>),
    Message(Partial),
    /// It was refused, and its payload is thrown away.
    Skip,
}

/// A message that is arriving.
pub(super) struct Partial {
    stream: StreamId,
    number: u64,
    kind: Kind,
    length: usize,
    payload: Vec<u8>,
    /// From the memory budget: room for what came, and for all of it in the end.
    taken: usize,
}

/// Frames after which others have their turn, whatever becomes of them. A record of TLS has room for hundreds.
pub(crate) const WORK: usize = 256;

/// What the open of a stream counts for: a hash and a place in a table.
const OPENING: usize = 4;

/// What is allocated for a message of unknown sincerity.
const FIRST_PIECE: usize = 4 << 10;

/// Bytes to take for a message of `length` of which there will be `needed` now, where `taken` are.
/// Computes with what a length has on the wire, 32 bits, so that it is the same everywhere.
fn more(taken: usize, needed: usize, length: usize) -> usize {
    let [taken, needed, length] = [taken, needed, length].map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    if needed <= taken {
        return 0;
    }
    let room = taken.saturating_mul(GROWTH).max(needed).min(length);
    usize::try_from(room - taken).unwrap_or(usize::MAX)
}

/// How much larger the next piece is. What has come is moved when it grows: of a message of 1 MiB, a fifteenth.
const GROWTH: u32 = 16;

impl Target {
    /// Bytes taken from the memory budget.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Message(partial) => partial.taken,
            Self::Nothing | Self::Name(..) | Self::Skip => 0,
        }
    }
}

impl Peer {
    /// Takes what the connection in use has brought, or the first part of it where that is much work: `input` moves on behind
    /// what was taken. Says how much work that was.
    pub(crate) fn receive(&mut self, input: &mut &[u8], now: Instant) -> Result<usize, Violation> {
        let mut work = 0;
        while let Some(connection) = &mut self.connection {
            let before = input.len();
            let piece = connection.decoder.next(input)?;
            connection.consumed += (before - input.len()) as u64;
            match piece {
                None => break,
                Some(Piece::Header(header)) => {
                    work += match header.kind {
                        Kind::Open => OPENING,
                        Kind::Close | Kind::Message | Kind::Request(_) | Kind::Response(_) => 1,
                    };
                    self.counters.conn_read_processed_bytes.add(header.size() as u64);
                    let target = self.header(&header, now)?;
                    self.target(target);
                }
                Some(Piece::Payload(bytes)) => self.payload(bytes),
                Some(Piece::End) => {
                    self.end();
                    // Between two frames only: the end of one may be all that is left of it, and no byte would bring us back.
                    if work >= WORK {
                        break;
                    }
                }
            }
        }
        if self.connection.is_none() {
            *input = &[];
        }
        Ok(work)
    }

    fn target(&mut self, target: Target) {
        if let Some(connection) = &mut self.connection {
            connection.target = target;
        }
    }

    fn header(&mut self, header: &Header, now: Instant) -> Result<Target, Violation> {
        let Header { kind, stream, length } = *header;
        match kind {
            Kind::Open | Kind::Close => {
                if let Some(connection) = &mut self.connection {
                    if !connection.opens.remove(1, now) {
                        return Err(Violation::OpensAndCloses);
                    }
                    if kind == Kind::Close {
                        connection.remote.remove(&stream);
                        self.not_ready(&stream);
                        return Ok(Target::Nothing);
                    }
                }
                Ok(Target::Name(stream, Vec::with_capacity(length)))
            }
            Kind::Message | Kind::Request(_) => Ok(self.message(kind, stream, length, now)),
            Kind::Response(request) => Ok(self.response(request, stream, length, now)),
        }
    }

    fn message(&mut self, kind: Kind, stream: StreamId, length: usize, now: Instant) -> Target {
        let Some(entry) = self.streams.get_mut(&stream) else {
            self.counters.dropped_unknown.one();
            return Target::Skip;
        };
        if let Some(connection) = &mut self.connection
            && connection.again < TELL_AGAIN.len()
        {
            connection.heard.insert(stream);
        }
        if length > entry.limits.max_message {
            self.counters.dropped_oversize.one();
            return Target::Skip;
        }
        // Both pay, whatever the first says.
        let tokens = u32::try_from(length).unwrap_or(u32::MAX);
        let (messages, bytes) = (entry.messages.remove(1, now), entry.bytes.remove(tokens, now));
        if !(messages && bytes) {
            self.counters.dropped_rate.one();
            return Target::Skip;
        }
        let number = entry.number;
        self.begin(stream, number, kind, length)
    }

    fn response(&mut self, request: RequestId, stream: StreamId, length: usize, now: Instant) -> Target {
        match self.streams.get(&stream).map(|entry| entry.number) {
            None => self.counters.dropped_unknown.one(),
            Some(_) if !self.responses.admit(&request, &stream, length, now) => self.counters.dropped_rate.one(),
            Some(number) => return self.begin(stream, number, Kind::Response(request), length),
        }
        Target::Skip
    }

    fn begin(&mut self, stream: StreamId, number: u64, kind: Kind, length: usize) -> Target {
        let first = length.min(FIRST_PIECE);
        if !self.take(first) {
            return Target::Skip;
        }
        Target::Message(Partial {
            stream,
            number,
            kind,
            length,
            payload: Vec::with_capacity(first),
            taken: first,
        })
    }

    fn take(&mut self, bytes: usize) -> bool {
        let taken = self.budget.take(self.held, bytes);
        if taken {
            self.held += bytes;
        } else {
            self.counters.dropped_memory.one();
        }
        taken
    }

    /// Grows with what arrives, never with what was announced (W6).
    fn payload(&mut self, bytes: &[u8]) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let more = match &mut connection.target {
            Target::Name(_, name) => {
                name.extend_from_slice(bytes);
                self.counters.conn_read_processed_bytes.add(bytes.len() as u64);
                return;
            }
            Target::Nothing | Target::Skip => {
                self.counters.conn_read_skipped_bytes.add(bytes.len() as u64);
                return;
            }
            Target::Message(Partial {
                payload, length, taken, ..
            }) => more(*taken, payload.len() + bytes.len(), *length),
        };
        let room = more == 0 || self.take(more);
        let Some(connection) = &mut self.connection else {
            return;
        };
        let held = connection.target.held();
        if let Target::Message(Partial { payload, taken, .. }) = &mut connection.target
            && room
        {
            *taken += more;
            payload.reserve_exact(*taken - payload.len());
            payload.extend_from_slice(bytes);
            self.counters.conn_read_processed_bytes.add(bytes.len() as u64);
        } else {
            connection.target = Target::Skip;
            self.counters.conn_read_skipped_bytes.add(bytes.len() as u64);
            self.give_back(held);
        }
    }

    fn end(&mut self) {
        self.responses.frame_ended();
        let Some(connection) = &mut self.connection else {
            return;
        };
        match std::mem::replace(&mut connection.target, Target::Nothing) {
            Target::Nothing | Target::Skip => {}
            Target::Name(stream, name) => self.opened_there(stream, &name),
            Target::Message(partial) => self.deliver(partial),
        }
    }

    fn opened_there(&mut self, stream: StreamId, name: &[u8]) {
        // The original does not look, and logs whatever name it is told.
        if stream != StreamId::new(&self.local, &self.remote, name) {
            self.after.notes.push(Note::NotItsName(stream));
            return;
        }
        if let Some(connection) = &mut self.connection
            && connection.remote.len() < REMOTE_STREAMS
        {
            connection.remote.insert(stream);
        }
        self.check_ready(&stream);
    }

    fn deliver(&mut self, partial: Partial) {
        let Partial {
            stream,
            number,
            kind,
            payload,
            taken,
            ..
        } = partial;
        let Some(entry) = self.streams.get_mut(&stream).filter(|entry| entry.number == number) else {
            // Closed while it arrived.
            self.give_back(taken);
            return;
        };
        let payload = Bytes::from(payload);
        let message = match kind {
            Kind::Request(id) => Inbound::Request {
                handle: RequestHandle(id),
                payload,
            },
            Kind::Response(_) => Inbound::Response(payload),
            Kind::Open | Kind::Close | Kind::Message => Inbound::Plain(payload),
        };
        debug_assert_eq!(message.len(), taken, "a complete message fills what was taken for it");
        self.after.wake.append(&mut entry.waiting);
        let evicted = if entry.incoming.len() >= entry.limits.incoming {
            entry.incoming.pop_front()
        } else {
            None
        };
        entry.incoming.push_back(message);
        if let Some(evicted) = evicted {
            self.counters.dropped_incoming.one();
            self.give_back(evicted.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_MESSAGE_LENGTH;

    #[test]
    fn a_message_grows_to_its_length_in_pieces_and_in_32_bits() {
        // From the 4 KiB at first to the longest message there is: every piece in the 17 sizes of
        // its length.
        for length in [FIRST_PIECE, 1 << 16, (1 << 20) + 7, (1 << 28) + 1, MAX_MESSAGE_LENGTH] {
            let (mut taken, mut pieces) = (FIRST_PIECE, 0);
            while taken < length {
                let grown = taken + more(taken, taken + 1, length);
                assert!(taken < grown && grown <= length, "{taken} of {length}: {grown}");
                assert!(grown <= 16 * taken, "{taken} of {length}: {grown}");
                (taken, pieces) = (grown, pieces + 1);
            }
            assert!(pieces <= 5, "{length}: {pieces}");
        }
        assert_eq!(more(1 << 28, 1 << 28, MAX_MESSAGE_LENGTH), 0);
        assert_eq!(
            more(1 << 28, (1 << 28) + 1, MAX_MESSAGE_LENGTH),
            MAX_MESSAGE_LENGTH - (1 << 28)
        );
    }
}
