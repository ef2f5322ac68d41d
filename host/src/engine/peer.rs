//! Everything about one peer but its sockets: the streams to it, what waits in them, and the frames of the connection that is
//! in use.

mod inbound;
mod streams;
#[cfg(test)]
mod tests;

use super::bucket::{TokenBucket, WireBucket};
use super::frame::{Decoder, Header, Kind, RequestId, Violation};
use super::id::{Key, StreamId};
use super::memory::Budget;
use super::outgoing::Outgoing;
use super::responses::{ResponsePolicy, Responses};
use crate::after::After;
use crate::counters::PeerCounters;
use crate::limits::{Limits, MAX_STREAMS_PER_PEER, Priority};
use crate::message::Inbound;
use bytes::Bytes;
use inbound::Target;
pub(crate) use inbound::WORK;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Every so many messages the two priorities swap.
const INVERT_EVERY: u64 = 8;

/// Opens and closes that a connection may bring at once: each of the most streams there are opened, and closed.
const OPENS_AND_CLOSES: u32 = 2 * MAX_STREAMS_PER_PEER as u32;

/// And again within twenty minutes, in thousandths a second. The original never forgets one, so that a long-lived
/// connection on which streams come and go is cut in the end (W7).
const OPENS_AND_CLOSES_RATE: u64 = 3_333;

/// Streams that the other end has open on a connection, at most: what it may have, and as many whose close has not come yet.
const REMOTE_STREAMS: usize = 2 * MAX_STREAMS_PER_PEER;

/// When opens are told again to a peer that has said nothing on a stream of its own, counted from the start of a connection. A
/// Go host may lose the first ones when one connection replaces another, and would keep silent as long as the new one
/// lasts (W3); it ignores what it knows.
const TELL_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Opens and closes that are told on a connection before none is told again: the other end may count them.
const TOLD: usize = OPENS_AND_CLOSES as usize - 100;

/// Bytes on the wire that nothing need have come of: what TLS reads ahead, generously.
const READ_AHEAD: u64 = 102_400;

/// What a stream is asked to send.
#[derive(Debug)]
pub(crate) enum Outbound {
    Plain,
    Request(ResponsePolicy),
    Response(RequestId),
}

/// Which stream a handle is for. A stream of the same name that was opened later is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) id: StreamId,
    number: u64,
}

struct Entry {
    number: u64,
    name: Arc<str>,
    priority: Priority,
    limits: Limits,
    outgoing: VecDeque<(Outbound, Bytes)>,
    incoming: VecDeque<Inbound>,
    messages: TokenBucket,
    bytes: TokenBucket,
    /// Place among those that may send and have something to.
    ready: Option<usize>,
    waiting: Vec<Waker>,
}

/// What belongs to the connection in use and ends with it.
struct Connection {
    generation: u64,
    decoder: Decoder,
    target: Target,
    /// Streams that the other end has open here: it drops what comes for others.
    remote: HashSet<StreamId>,
    /// Opens and closes to tell it.
    notices: VecDeque<Notice>,
    opens: TokenBucket,
    consumed: u64,
    since: Instant,
    /// How often opens were told again.
    again: usize,
    /// Opens and closes that were told.
    told: usize,
    /// Streams on which the other end has said something.
    heard: HashSet<StreamId, BuildHasherDefault<FirstBytes>>,
}

enum Notice {
    Open(StreamId, Arc<str>),
    Close(StreamId),
}

/// See the module.
pub(crate) struct Peer {
    local: Key,
    remote: Key,
    streams: HashMap<StreamId, Entry, BuildHasherDefault<FirstBytes>>,
    opened: u64,
    /// Streams that may send and have something to, by priority.
    ready: [Vec<StreamId>; 2],
    pops: u64,
    connection: Option<Connection>,
    responses: Responses,
    budget: Budget,
    held: usize,
    /// Of the limits of all streams, for people to look at, in billionths.
    sums: [u128; 4],
    counters: Arc<PeerCounters>,
    rng: StdRng,
    /// For when the lock is given back.
    pub(crate) after: After,
}

impl Peer {
    pub(crate) fn new(local: Key, remote: Key, budget: Budget, counters: Arc<PeerCounters>, rng: StdRng) -> Self {
        Self {
            local,
            remote,
            streams: HashMap::default(),
            opened: 0,
            ready: [Vec::new(), Vec::new()],
            pops: 0,
            connection: None,
            responses: Responses::default(),
            budget,
            held: 0,
            sums: [0; 4],
            counters,
            rng,
            after: After::default(),
        }
    }

    /// A connection is in use from now on, before anything is read from it: no open is lost (W3).
    pub(crate) fn attach(&mut self, generation: u64, now: Instant) {
        self.detach();
        let opens = self.streams.iter();
        let opens = opens.map(|(id, entry)| Notice::Open(*id, entry.name.clone()));
        self.connection = Some(Connection {
            generation,
            decoder: Decoder::default(),
            target: Target::Nothing,
            remote: HashSet::new(),
            notices: opens.collect(),
            opens: TokenBucket::full(OPENS_AND_CLOSES_RATE, OPENS_AND_CLOSES, now),
            consumed: 0,
            since: now,
            again: 0,
            told: 0,
            heard: HashSet::default(),
        });
    }

    /// It is no longer. What waits to be sent waits for the next one.
    pub(crate) fn detach(&mut self) {
        for id in std::mem::take(&mut self.ready).into_iter().flatten() {
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.ready = None;
            }
        }
        if let Some(connection) = self.connection.take() {
            self.give_back(connection.target.held());
            self.responses.nothing_comes();
        }
    }

    /// Whether so many bytes more may come over `wire`, for what the streams allow and for the
    /// responses that were asked for.
    pub(crate) fn allows(&mut self, wire: &mut WireBucket, bytes: usize, now: Instant) -> bool {
        wire.give_back(self.responses.take_left_over());
        wire.take(bytes, now, &mut self.responses.allowance)
    }

    /// When [`Peer::tick`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let connection = self.connection.as_ref()?;
        Some(connection.since + *TELL_AGAIN.get(connection.again)?)
    }

    /// What is due at `now`.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.next_timeout().is_none_or(|at| now < at) {
            return;
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        connection.again += 1;
        for (id, entry) in &self.streams {
            let silent = connection.remote.contains(id) && !connection.heard.contains(id);
            if silent && connection.told + connection.notices.len() < TOLD {
                connection.notices.push_back(Notice::Open(*id, entry.name.clone()));
            }
        }
    }

    /// Which connection is in use.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.connection.as_ref().map(|connection| connection.generation)
    }

    /// Whether the connection in use has something to write.
    pub(crate) fn has_frames(&self) -> bool {
        let notices = self.connection.as_ref().is_some_and(|c| !c.notices.is_empty());
        notices || self.ready.iter().any(|ready| !ready.is_empty())
    }

    /// Adds the next frames to `out`, opens and closes first.
    pub(crate) fn fill(&mut self, now: Instant, out: &mut Outgoing) {
        while out.has_room() {
            let (header, payload) = if let Some(notice) = self.next_notice() {
                notice
            } else if let Some((id, outbound, payload)) = self.pop() {
                let kind = match outbound {
                    Outbound::Plain => Kind::Message,
                    Outbound::Response(request) => Kind::Response(request),
                    Outbound::Request(policy) => {
                        let mut request = RequestId([0; 32]);
                        self.rng.fill_bytes(&mut request.0);
                        self.responses.expect(request, id, policy, now, &mut self.rng);
                        Kind::Request(request)
                    }
                };
                self.counters.message_bytes.observe(payload.len() as u64);
                let (stream, length) = (id, payload.len());
                (Header { kind, stream, length }, payload)
            } else {
                break;
            };
            self.counters
                .conn_written_bytes
                .add((header.size() + payload.len()) as u64);
            self.after.spent.extend(out.push(&header, payload));
        }
    }

    fn next_notice(&mut self) -> Option<(Header, Bytes)> {
        let connection = self.connection.as_mut()?;
        let notice = connection.notices.pop_front()?;
        connection.told += 1;
        let (kind, stream, name) = match notice {
            Notice::Open(id, name) => (Kind::Open, id, Bytes::copy_from_slice(name.as_bytes())),
            Notice::Close(id) => (Kind::Close, id, Bytes::new()),
        };
        let length = name.len();
        Some((Header { kind, stream, length }, name))
    }

    /// A message of a random stream of the class whose turn it is, or of the other.
    fn pop(&mut self) -> Option<(StreamId, Outbound, Bytes)> {
        if self.ready.iter().all(Vec::is_empty) {
            return None;
        }
        self.pops = self.pops.wrapping_add(1);
        let mut class = usize::from(self.pops.is_multiple_of(INVERT_EVERY));
        if self.ready[class].is_empty() {
            class = 1 - class;
        }
        let at = match self.ready[class].len() {
            1 => 0,
            count => self.rng.random_range(0..count),
        };
        let id = self.ready[class][at];
        let entry = self.streams.get_mut(&id)?;
        let (outbound, payload) = entry.outgoing.pop_front()?;
        if entry.outgoing.is_empty() {
            self.not_ready(&id);
        }
        Some((id, outbound, payload))
    }

    /// Puts a stream among those that are to send, if it may and has something to.
    fn check_ready(&mut self, id: &StreamId) {
        let may = self.connection.as_ref().is_some_and(|c| c.remote.contains(id));
        let Some(entry) = self.streams.get_mut(id) else {
            return;
        };
        if may && !entry.outgoing.is_empty() && entry.ready.is_none() {
            let ready = &mut self.ready[class(entry.priority)];
            entry.ready = Some(ready.len());
            ready.push(*id);
        }
    }

    fn not_ready(&mut self, id: &StreamId) {
        let Some((class, at)) = self
            .streams
            .get_mut(id)
            .and_then(|entry| Some((class(entry.priority), entry.ready.take()?)))
        else {
            return;
        };
        self.ready[class].swap_remove(at);
        if let Some(moved) = self.ready[class].get(at)
            && let Some(entry) = self.streams.get_mut(moved)
        {
            entry.ready = Some(at);
        }
    }

    fn give_back(&mut self, bytes: usize) {
        self.held -= bytes;
        self.budget.give_back(bytes);
    }

    /// Whether what came over the wire is worth the bytes: a peer may not make us open records without content.
    pub(crate) fn check_overhead(&self, raw: u64) -> Result<(), Violation> {
        let consumed = self.connection.as_ref().map_or(0, |connection| connection.consumed);
        if consumed.saturating_mul(2) < raw.saturating_sub(READ_AHEAD) {
            return Err(Violation::Overhead { raw, consumed });
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.detach();
        self.budget.give_back(self.held);
    }
}

fn class(priority: Priority) -> usize {
    match priority {
        Priority::Default => 0,
        Priority::Low => 1,
    }
}

/// Ids are SHA-256 and only ours are looked for, so their first bytes are as good as any hash of them.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some((first, _)) = bytes.split_first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
