//! One end of a connection without a socket: for the fuzzer.

use super::chunks::{CHUNK, Chunks, chunk};
use super::frame::{HEADER, Header};
use super::session::{Body, Session};
use super::{Config, ProtocolError};
use futures::task::noop_waker;
use libp2p_core::Endpoint;
use std::task::Poll;
use std::time::Duration;
use web_time::Instant;

/// See the module.
pub struct End {
    session: Session,
    now: Instant,
    /// The part of a header that has come.
    header: Vec<u8>,
    body: (Body, usize),
}

impl End {
    /// One that dialled, or was dialled.
    pub fn new(dialer: bool) -> Self {
        let side = if dialer { Endpoint::Dialer } else { Endpoint::Listener };
        Self {
            session: Session::new(side, &Config::default()),
            now: Instant::now(),
            header: Vec::new(),
            body: (Body::None, 0),
        }
    }

    /// Time passes.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// Hears some of what the other end sends, cut wherever it may be.
    ///
    /// # Errors
    ///
    /// What the other end did wrong.
    pub fn hear(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        while !bytes.is_empty() && self.session.ended().is_none() {
            let (of, left) = self.body;
            if left > 0 {
                let (piece, rest) = bytes.split_at(left.min(CHUNK).min(bytes.len()));
                if let Body::Of(id) = of {
                    let mut chunk = chunk();
                    chunk[..piece.len()].copy_from_slice(piece);
                    let _ = self.session.body(id, chunk, piece.len());
                }
                self.body.1 -= piece.len();
                bytes = rest;
                continue;
            }
            let (piece, rest) = bytes.split_at((HEADER - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(piece);
            bytes = rest;
            if let Ok(header) = <[u8; HEADER]>::try_from(&self.header[..]) {
                self.header.clear();
                let header = Header::decode(&header).map_err(|error| self.session.refuse(error))?;
                let of = self.session.header(header, self.now)?;
                let length = if of == Body::None { 0 } else { header.length as usize };
                self.body = (of, length);
            }
        }
        Ok(())
    }

    /// What is to be said, as it goes on the wire.
    pub fn talk(&mut self) -> Vec<u8> {
        let said = self.session.take_unsaid();
        self.session.said();
        said
    }

    /// Whether more would be read.
    pub fn listens(&self) -> bool {
        self.session.listens()
    }

    /// A stream of ours.
    pub fn open(&mut self) -> Option<u32> {
        match self.session.open(self.now, &noop_waker()) {
            Poll::Ready(Ok(id)) => Some(id),
            _ => None,
        }
    }

    /// A stream of the other end's.
    pub fn accept(&mut self) -> Option<u32> {
        match self.session.accept(&noop_waker()) {
            Poll::Ready(Ok(id)) => Some(id),
            _ => None,
        }
    }

    /// Reads all there is of a stream, and says how much that was.
    pub fn read(&mut self, id: u32) -> Option<usize> {
        let Poll::Ready(Ok(Some(mut chunks))) = self.session.receive(id, 0, self.now, &noop_waker()) else {
            return None;
        };
        let n = drain(&mut chunks);
        self.session.read(id, u32::try_from(n).ok()?, self.now);
        Some(n)
    }

    /// How much of `n` bytes goes out on a stream.
    pub fn send(&mut self, id: u32, n: usize) -> Option<usize> {
        let Poll::Ready(Ok(header)) = self.session.may_send(id, n, &noop_waker()) else {
            return None;
        };
        self.session.sent(header);
        Some(header.length as usize)
    }

    /// Closes our direction of a stream.
    pub fn finish(&mut self, id: u32) {
        let _ = self.session.finish(id);
    }

    /// Drops a stream.
    pub fn forget(&mut self, id: u32) {
        self.session.forget(id);
    }
}

fn drain(chunks: &mut Chunks) -> usize {
    let (mut all, mut room) = (0, [0; 4096]);
    loop {
        match chunks.read(&mut room) {
            0 => return all,
            n => all += n,
        }
    }
}
