//! What comes from the other end.

use super::{BACKLOG, Body, Ended, RoundTrip, Session, Stream};
use crate::yamux::ProtocolError;
use crate::yamux::frame::{ACK, FIN, Header, Kind, NORMAL, PROTOCOL_ERROR, RST, SYN};
use crate::yamux::window::INITIAL;
use std::io;
use web_time::Instant;

impl Session {
    /// A header has come, and says where the bytes behind it go. On an error the connection has ended, and the other
    /// end is to be told.
    pub(crate) fn header(&mut self, header: Header, now: Instant) -> Result<Body, ProtocolError> {
        match header.kind {
            Kind::Data | Kind::WindowUpdate => self.stream_header(header, now).map_err(|error| self.refuse(error)),
            Kind::Ping => {
                self.ping(header, now);
                Ok(Body::None)
            }
            Kind::GoAway => {
                self.end(match header.length {
                    NORMAL => Ended::There,
                    code => Ended::Aborted(code),
                });
                Ok(Body::None)
            }
        }
    }

    /// The other end does not keep to the protocol, and is told so.
    pub(crate) fn refuse(&mut self, error: ProtocolError) -> ProtocolError {
        if self.ended.is_none() {
            self.say(Header::go_away(PROTOCOL_ERROR));
            self.end(Ended::Broken(io::ErrorKind::InvalidData));
        }
        error
    }

    fn stream_header(&mut self, header: Header, now: Instant) -> Result<Body, ProtocolError> {
        let id = header.id;
        if header.has(SYN) {
            self.opened(header, now)?;
        }
        let data = if header.kind == Kind::Data { header.length } else { 0 };
        let Some(stream) = self.streams.get_mut(&id) else {
            // Refused, or closed and forgotten here, which the other end may not know yet. Who goes on sending is told:
            // he would wait for a window that nobody opens.
            if data > 0 && !header.has(RST) {
                if data > self.allowance.each.max(INITIAL) {
                    return Err(ProtocolError::WindowExceeded { stream: id });
                }
                if !self.mourned.contains(&id) {
                    self.mourn(id);
                    self.answer(Header::data(id, RST, 0));
                }
            }
            return Ok(if data > 0 { Body::Skip } else { Body::None });
        };
        if header.has(ACK) && !stream.acknowledged {
            stream.acknowledged = true;
            self.unacknowledged -= 1;
            self.woken.extend(self.opener.take());
        }
        if header.has(RST) {
            stream.reset = true;
            if !stream.acknowledged {
                stream.acknowledged = true;
                self.unacknowledged -= 1;
                self.woken.extend(self.opener.take());
            }
            stream.wake(&mut self.woken);
            return Ok(if data > 0 { Body::Skip } else { Body::None });
        }
        match header.kind {
            Kind::Data => {
                if data > 0 && stream.they_finished {
                    return Err(ProtocolError::DataAfterEnd { stream: id });
                }
                if !stream.window.take(data) {
                    return Err(ProtocolError::WindowExceeded { stream: id });
                }
            }
            // On a stream's first frame it says how much more than usual may be sent.
            _ => {
                stream.credit = stream
                    .credit
                    .checked_add(header.length)
                    .ok_or(ProtocolError::WindowOverflow { stream: id })?;
                self.woken.extend(stream.writer.take());
            }
        }
        if header.has(FIN) {
            stream.they_finished = true;
            // Behind the data of this very frame the reader is woken anyhow.
            self.woken.extend(stream.reader.take());
        }
        Ok(if data > 0 { Body::Of(id) } else { Body::None })
    }

    /// The other end opens a stream.
    fn opened(&mut self, header: Header, now: Instant) -> Result<(), ProtocolError> {
        let id = header.id;
        if self.is_ours(id) {
            return Err(ProtocolError::NotYours { stream: id });
        }
        if self.streams.contains_key(&id) {
            return Err(ProtocolError::Reopened { stream: id });
        }
        if self.streams.len() >= self.max_streams || self.accepting.len() >= BACKLOG {
            // One with data is answered where that is found to be of no stream.
            if !(header.kind == Kind::Data && header.length > 0) {
                self.mourn(id);
                self.answer(Header::data(id, RST, 0));
            }
            return Ok(());
        }
        if header.has(RST) {
            return Ok(());
        }
        let mut stream = Stream::new(ACK, INITIAL, now);
        stream.acknowledged = true;
        self.streams.insert(id, stream);
        self.accepting.push_back(id);
        self.woken.extend(self.acceptor.take());
        Ok(())
    }

    fn ping(&mut self, header: Header, now: Instant) {
        if header.has(ACK) {
            // Any other answer is one to a question that we did not ask, and tells us nothing.
            if let RoundTrip::Asked { value, at, .. } = self.round_trip
                && header.length == value
            {
                self.round_trip = RoundTrip::Known {
                    round_trip: now.saturating_duration_since(at),
                    at: now,
                };
            }
        } else {
            self.answer(Header::ping(ACK, header.length));
        }
    }

    /// The first `n` bytes of `chunk` have come for a stream. A chunk that is not kept comes back.
    pub(crate) fn body(&mut self, id: u32, chunk: Vec<u8>, n: usize) -> Option<Vec<u8>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Some(chunk);
        };
        if stream.reset {
            return Some(chunk);
        }
        let back = stream.received.push(chunk, n);
        self.woken.extend(stream.reader.take());
        back
    }
}
