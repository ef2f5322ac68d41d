//! A stream with each peer that is wanted or served, and a message a second on it.

use anyhow::Result;
use knock_host::{Handle, Limits, Stream};
use libp2p::PeerId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const NAME: &str = "hardship";

pub(crate) struct Talks {
    handle: Handle,
    /// Tells messages of this process from those of the one before it.
    incarnation: u64,
    talks: BTreeMap<PeerId, Talk>,
}

struct Talk {
    stream: Arc<Stream>,
    sent: u64,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    messages: AtomicU64,
    /// Messages that came twice, out of order, or not as they were sent.
    wrong: AtomicU64,
    /// The newest: which incarnation, which number.
    last: Mutex<(u64, u64)>,
}

impl Talks {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            handle,
            incarnation: rand::random(),
            talks: BTreeMap::new(),
        }
    }

    /// Begins to talk with `peer`, unless that has begun.
    pub(crate) fn begin(&mut self, peer: PeerId) -> Result<()> {
        if self.talks.contains_key(&peer) {
            return Ok(());
        }
        let stream = Arc::new(self.handle.open_stream(peer, NAME, Limits::default())?);
        let heard = Arc::<Heard>::default();
        tokio::spawn({
            let (stream, heard) = (stream.clone(), heard.clone());
            async move {
                while let Some(message) = stream.recv().await {
                    heard.message(&message);
                }
            }
        });
        let talk = Talk { stream, sent: 0, heard };
        self.talks.insert(peer, talk);
        Ok(())
    }

    /// Sends every peer the next message.
    pub(crate) fn speak(&mut self) {
        for talk in self.talks.values_mut() {
            talk.sent += 1;
            let mut message = self.incarnation.to_be_bytes().to_vec();
            message.extend(talk.sent.to_be_bytes());
            talk.stream.send(message);
        }
    }

    pub(crate) fn state(&self) -> BTreeMap<String, Value> {
        let talks = self.talks.iter().map(|(peer, talk)| {
            let state = json!({
                "sent": talk.sent,
                "heard": talk.heard.messages.load(Ordering::Relaxed),
                "wrong": talk.heard.wrong.load(Ordering::Relaxed),
                "open": talk.stream.is_open(),
                "linked": self.handle.is_connected(peer),
            });
            (peer.to_string(), state)
        });
        talks.collect()
    }

    /// Of how many peers the host counts something.
    pub(crate) fn counted(&self) -> usize {
        self.handle.counters().peers().len()
    }
}

impl Heard {
    fn message(&self, message: &[u8]) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let number = |at: usize| {
            let bytes = message.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_be_bytes)
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (number(0), number(8), message.len()) {
            (Some(incarnation), Some(sent), 16) if incarnation != last.0 || sent > last.1 => {
                *last = (incarnation, sent)
            }
            _ => _ = self.wrong.fetch_add(1, Ordering::Relaxed),
        }
    }
}
