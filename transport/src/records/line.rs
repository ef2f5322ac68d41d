//! Two ends of ours, connected without a socket, of which one may lie to the other: for tests and for the fuzzer.

use super::{Content, IntoRecords as _, Records};
use crate::config::Config;
use crate::handshake::{self, Received};
use crate::identity::Key;
use crate::tls::{Tls, no_server_name};
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::cipher::OutboundChunks;
use rustls::server::UnbufferedServerConnection;
use rustls::{ContentType, Error};
use std::collections::VecDeque;
use std::ops::Range;

/// One direction of a connection. Both ends stay in step over any number of quarrels: see [`Line::settle`].
pub struct Line {
    speaker: Records,
    hearer: Records,
    /// How many times the speaker has changed its key, and how many times the hearer has followed.
    changes: (u64, u64),
}

/// What the hearer makes of a record. The first number says how many bytes it took.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Data, and where it now lies in clear.
    Data(usize, Range<usize>),
    /// Nothing follows.
    End(usize),
    /// Nothing that the stream would see.
    Control(usize),
    /// Part of the record is missing.
    Part,
}

impl Line {
    /// Connects the owners of two configurations twice. In the first line the dialer speaks, in the second the listener.
    pub fn both(dialer: &Config, listener: &Config) -> [Self; 2] {
        let tls = |config: &Config| {
            let (identity, certificate) = (config.caught.clone(), config.certificate.clone());
            Tls::new(identity, certificate, &config.groups, config.key_log.clone()).expect("configures")
        };
        let connected = || connect(&tls(dialer), dialer.key, &tls(listener), listener.key);
        let line = |speaker, hearer| Self {
            speaker,
            hearer,
            changes: (0, 0),
        };
        let ([dialer, listener], [other_dialer, other_listener]) = (connected(), connected());
        [line(dialer, listener), line(other_listener, other_dialer)]
    }

    /// Seals anything as a record of any kind.
    pub fn say(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let sealed = self
            .speaker
            .sealing
            .seal(ContentType::from(kind), OutboundChunks::Single(payload));
        sealed.expect("far from the last sequence number")
    }

    /// The speaker goes over to its next key. To say so is up to it.
    pub fn change_key(&mut self) {
        self.speaker.update(&mut VecDeque::new()).expect("TLS 1.3");
        self.changes.0 += 1;
    }

    /// What the hearer makes of the record at the start of `bytes`, in place.
    ///
    /// # Errors
    ///
    /// What ends the connection.
    pub fn hear(&mut self, bytes: &mut [u8]) -> Result<Heard, Error> {
        let Some(record) = self.hearer.open(bytes)? else {
            return Ok(Heard::Part);
        };
        // The numbers of records start anew with each key, and only there.
        self.changes.1 += u64::from(self.hearer.opening.sequence == 0);
        Ok(match record.content {
            Content::Data(range) => Heard::Data(record.size, range),
            Content::End => Heard::End(record.size),
            Content::Control => Heard::Control(record.size),
        })
    }

    /// The hearer says `data`, and the speaker hears it. Says how many records that took.
    ///
    /// # Errors
    ///
    /// None are expected.
    pub fn answer(&mut self, data: &[u8]) -> Result<usize, Error> {
        let mut records = VecDeque::new();
        self.hearer.seal(&[data], &mut records)?;
        let last = records.len();
        for (number, record) in records.iter_mut().enumerate() {
            let heard = self.speaker.open(record)?.map(|record| record.content);
            let expected = match heard {
                Some(Content::Data(range)) => number + 1 == last && record[range] == *data,
                Some(Content::Control) => number + 1 < last,
                _ => false,
            };
            if !expected {
                return Err(Error::General("an answer that is not what was said".into()));
            }
        }
        Ok(last)
    }

    /// Ends a quarrel: what was half heard is forgotten, and both ends go over to one new key.
    pub fn settle(&mut self) {
        self.change_key();
        while self.changes.0 < self.changes.1 {
            self.change_key();
        }
        while self.changes.1 < self.changes.0 {
            self.hearer.follow().expect("TLS 1.3");
            self.changes.1 += 1;
        }
        self.hearer.sealing.update_requested = false;
        let opening = &mut self.hearer.opening;
        opening.updates = 0;
        opening.handshake.clear();
        // Long before its suite's limit, where an answer would take a record more.
        if self.hearer.sealing.sequence > 1 << 16 {
            self.hearer.update(&mut VecDeque::new()).expect("TLS 1.3");
            self.speaker.follow().expect("TLS 1.3");
        }
    }
}

/// A whole handshake. The dialer's end comes first.
pub(crate) fn connect(dialer: &Tls, dialer_key: Key, listener: &Tls, listener_key: Key) -> [Records; 2] {
    let client = dialer.client(listener_key, None);
    let server = listener.server(dialer_key, None).expect("configures");
    let mut client = UnbufferedClientConnection::new(client, no_server_name()).expect("starts");
    let mut server = UnbufferedServerConnection::new(server).expect("starts");
    let (mut at_client, mut at_server) = (Received::default(), Received::default());
    for _ in 0..3 {
        let mut flight = Vec::new();
        handshake::step(&mut client, &mut at_client, &mut flight).expect("no fault");
        give(&mut at_server, &flight);
        flight.clear();
        handshake::step(&mut server, &mut at_server, &mut flight).expect("no fault");
        give(&mut at_client, &flight);
    }
    [
        client.into_records().expect("through"),
        server.into_records().expect("through"),
    ]
}

fn give(received: &mut Received, flight: &[u8]) {
    for piece in flight.chunks(1000) {
        let space = received.space().expect("room");
        space[..piece.len()].copy_from_slice(piece);
        received.end += piece.len();
    }
}
