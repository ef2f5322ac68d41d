//! Two peers, and a wire between them that we cut where we like.

mod bounds;

use super::*;
use crate::engine::frame::{HEADER, RequestId};
use crate::engine::id::tests::key;
use crate::message::Sent;
use libp2p_identity::{Keypair, PeerId};
use proptest::prelude::*;
use rand::SeedableRng as _;
use std::task::{Context, Poll};
use std::time::Duration;

const BUDGET: usize = 64 << 20;

struct Pair {
    /// Keys 1 and 2.
    ends: [Peer; 2],
    /// From each end to the other, not yet received.
    wires: [Vec<u8>; 2],
    budgets: [Budget; 2],
    now: Instant,
    generation: u64,
}

fn id(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

fn wide() -> Limits {
    Limits::default()
        .with_outgoing_buffer(10_000)
        .with_incoming_buffer(10_000)
        .with_max_message(1 << 20)
        .with_messages(1e6, 1_000_000)
        .with_bytes(1e9, 1 << 30)
}

fn receive(end: &mut Peer, mut bytes: &[u8], now: Instant) -> Result<(), Violation> {
    loop {
        end.receive(&mut bytes, now)?;
        if bytes.is_empty() {
            return Ok(());
        }
    }
}

impl Pair {
    fn new() -> Self {
        Self::with_budget(BUDGET)
    }

    fn with_budget(budget: usize) -> Self {
        let budgets = [Budget::new(budget), Budget::new(budget)];
        let end = |local, remote, budget: &Budget| {
            let rng = StdRng::seed_from_u64(u64::from(local));
            Peer::new(key(local), key(remote), budget.clone(), Arc::default(), rng)
        };
        Self {
            ends: [end(1, 2, &budgets[0]), end(2, 1, &budgets[1])],
            wires: [Vec::new(), Vec::new()],
            budgets,
            now: Instant::now(),
            generation: 0,
        }
    }

    fn connected() -> Self {
        let mut pair = Self::new();
        pair.connect();
        pair
    }

    /// A new connection; what was on the old one's wire is lost.
    fn connect(&mut self) {
        self.generation += 1;
        for end in &mut self.ends {
            end.attach(self.generation, self.now);
        }
        self.wires = [Vec::new(), Vec::new()];
    }

    fn cut(&mut self) {
        for end in &mut self.ends {
            end.detach();
        }
        self.wires = [Vec::new(), Vec::new()];
    }

    fn open(&mut self, at: usize, name: &str, limits: Limits) -> Ticket {
        self.open_with(at, name, Priority::Default, limits)
    }

    fn open_with(&mut self, at: usize, name: &str, priority: Priority, limits: Limits) -> Ticket {
        self.ends[at].open(&id(9), name, priority, limits, self.now).unwrap()
    }

    fn open_both(&mut self, name: &str, limits: Limits) -> [Ticket; 2] {
        [self.open(0, name, limits), self.open(1, name, limits)]
    }

    fn send(&mut self, at: usize, ticket: Ticket, message: &[u8]) -> Sent {
        self.ends[at].send(ticket, Outbound::Plain, Bytes::copy_from_slice(message))
    }

    /// One turn of writing at `at`.
    fn write(&mut self, at: usize) {
        let mut out = Outgoing::default();
        self.ends[at].fill(self.now, &mut out);
        while !out.is_empty() {
            let chunk = out.chunk().to_vec();
            self.wires[at].extend_from_slice(&chunk);
            out.advance(chunk.len());
        }
    }

    /// The first `n` bytes of what `at` wrote arrive.
    fn arrive(&mut self, at: usize, n: usize) -> Result<(), Violation> {
        let rest = self.wires[at].split_off(n.min(self.wires[at].len()));
        let bytes = std::mem::replace(&mut self.wires[at], rest);
        receive(&mut self.ends[1 - at], &bytes, self.now)
    }

    /// Until there is nothing more to write.
    fn settle(&mut self) {
        while self.ends.iter().any(Peer::has_frames) || self.wires.iter().any(|wire| !wire.is_empty()) {
            for at in 0..2 {
                self.write(at);
                self.arrive(at, usize::MAX).unwrap();
            }
        }
    }

    fn recv(&mut self, at: usize, ticket: Ticket) -> Option<Inbound> {
        match self.ends[at].poll_recv(ticket, &Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => message,
            Poll::Pending => None,
        }
    }

    fn received(&mut self, at: usize, ticket: Ticket) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.recv(at, ticket))
            .map(|message| message.payload().to_vec())
            .collect()
    }

    /// A frame that end 0 never would have written.
    fn forge(&mut self, kind: Kind, stream: StreamId, payload: &[u8]) -> Result<(), Violation> {
        let mut wire = Vec::new();
        let length = payload.len();
        Header { kind, stream, length }.encode(&mut wire);
        wire.extend_from_slice(payload);
        receive(&mut self.ends[1], &wire, self.now)
    }
}

fn numbered(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|n| n.to_be_bytes().to_vec()).collect()
}

#[test]
fn messages_arrive_in_order_in_both_directions() {
    let mut pair = Pair::connected();
    let tickets = pair.open_both("x", wide());
    for (at, ticket) in tickets.into_iter().enumerate() {
        for message in numbered(1000) {
            pair.send(at, ticket, &message);
        }
    }
    pair.settle();
    for (at, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(pair.received(at, ticket), numbered(1000));
    }
}

#[test]
fn nothing_is_sent_before_the_other_end_has_opened_the_stream() {
    let mut pair = Pair::connected();
    let ours = pair.open(0, "x", wide());
    pair.send(0, ours, b"early");
    pair.settle();
    let theirs = pair.open(1, "x", wide());
    pair.settle();
    assert_eq!(pair.received(1, theirs), [b"early"]);
    assert_eq!(pair.ends[1].counters.dropped_unknown.get(), 0);
}

#[test]
fn what_waits_goes_out_on_the_next_connection() {
    let mut pair = Pair::new();
    let [ours, theirs] = pair.open_both("x", wide());
    pair.send(0, ours, b"1");
    pair.connect();
    pair.settle();
    pair.cut();
    pair.send(0, ours, b"2");
    pair.connect();
    pair.settle();
    assert_eq!(pair.received(1, theirs), [b"1", b"2"]);
}

#[test]
fn an_open_that_is_the_first_thing_on_a_connection_is_not_lost() {
    // W3: in the original it can come before, or with, the end of the old connection, and the stream stays silent then.
    let mut pair = Pair::new();
    let [ours, theirs] = pair.open_both("x", wide());
    for _ in 0..50 {
        // The connection is replaced, without an end in between, and bytes arrive at once.
        pair.connect();
        pair.write(1);
        pair.arrive(1, usize::MAX).unwrap();
        pair.send(0, ours, b"!");
        pair.settle();
        assert_eq!(pair.received(1, theirs), [b"!"]);
    }
}

#[test]
fn opens_are_told_again_where_nothing_was_heard_and_only_twice() {
    // W3 at the other end: it had them, and forgot.
    let mut pair = Pair::connected();
    let [ours, theirs] = pair.open_both("forgotten", wide());
    let [_, heard] = pair.open_both("heard", wide());
    pair.open(0, "only here", wide());
    pair.settle();
    pair.send(1, heard, b"!");
    pair.settle();
    let forget = |pair: &mut Pair| {
        let connection = pair.ends[1].connection.as_mut().unwrap();
        connection.remote.clear();
    };
    for after in TELL_AGAIN {
        forget(&mut pair);
        pair.send(1, theirs, b"?");
        let start = pair.ends[0].connection.as_ref().unwrap().since;
        assert_eq!(pair.ends[0].next_timeout(), Some(start + after));
        pair.ends[0].tick(start + after);
        let notices = &pair.ends[0].connection.as_ref().unwrap().notices;
        let told: Vec<&Notice> = notices.iter().collect();
        assert!(matches!(told[..], [Notice::Open(id, _)] if *id == ours.id));
        // Were it not for this, it would not be sent.
        assert!(!pair.ends[1].has_frames());
        pair.write(0);
        pair.arrive(0, usize::MAX).unwrap();
        assert!(pair.ends[1].has_frames());
        pair.write(1);
        pair.wires[1].clear();
    }
    assert_eq!(pair.ends[0].next_timeout(), None);
}

#[test]
fn a_stream_that_was_closed_and_opened_again_works_and_knows_nothing_of_before() {
    let mut pair = Pair::connected();
    let [ours, theirs] = pair.open_both("x", wide());
    pair.send(0, ours, b"1");
    pair.settle();
    assert!(pair.ends[1].close(theirs).unwrap().last);
    assert!(pair.ends[1].close(theirs).is_none(), "a second close is harmless");
    let again = pair.open(1, "x", wide());
    assert!(pair.ends[1].close(theirs).is_none(), "and does not close the new one");
    assert_eq!(pair.recv(1, theirs), None);
    pair.settle();
    pair.send(0, ours, b"2");
    pair.settle();
    assert_eq!(pair.received(1, again), [b"2"]);
    pair.send(1, theirs, b"from the grave");
    pair.settle();
    assert_eq!(pair.recv(0, ours), None);
}

#[test]
fn the_oldest_falls_out_of_a_full_buffer_on_either_side() {
    let mut pair = Pair::connected();
    let ours = pair.open(0, "x", wide().with_outgoing_buffer(5));
    let theirs = pair.open(1, "x", wide().with_incoming_buffer(3));
    let sent: Vec<_> = numbered(8).iter().map(|message| pair.send(0, ours, message)).collect();
    let (queued, displaced) = sent.split_at(5);
    assert!(queued.iter().all(|sent| *sent == Sent::Queued), "{sent:?}");
    assert!(displaced.iter().all(|sent| *sent == Sent::Displaced), "{sent:?}");
    pair.settle();
    assert_eq!(pair.received(1, theirs), numbered(8)[5..]);
    assert_eq!(pair.ends[0].counters.dropped_outgoing.get(), 3);
    assert_eq!(pair.ends[1].counters.dropped_incoming.get(), 2);
}

#[test]
fn a_message_over_a_rate_is_dropped_and_the_next_one_in_time_is_not() {
    let mut pair = Pair::connected();
    let ours = pair.open(0, "x", wide());
    let theirs = pair.open(1, "x", wide().with_messages(1.0, 2).with_bytes(1000.0, 1000));
    for message in numbered(5) {
        pair.send(0, ours, &message);
    }
    pair.settle();
    assert_eq!(pair.received(1, theirs), numbered(5)[..2]);
    assert_eq!(pair.ends[1].counters.dropped_rate.get(), 3);
    pair.now += Duration::from_secs(1);
    pair.send(0, ours, &[1; 1001]);
    pair.settle();
    assert_eq!(pair.recv(1, theirs), None, "more bytes than the bucket can hold");
    pair.now += Duration::from_secs(1);
    pair.send(0, ours, &[1; 1000]);
    pair.settle();
    assert_eq!(pair.received(1, theirs).len(), 1);
    let counters = &pair.ends[1].counters;
    assert_eq!(counters.conn_read_skipped_bytes.get(), 3 * 4 + 1001);
}

#[test]
fn a_message_that_is_too_long_is_dropped_by_whoever_finds_it_so() {
    let mut pair = Pair::connected();
    let ours = pair.open(0, "x", wide().with_max_message(100));
    let theirs = pair.open(1, "x", wide().with_max_message(50));
    for length in [101, 51, 50] {
        pair.send(0, ours, &vec![7; length]);
    }
    pair.settle();
    assert_eq!(pair.received(1, theirs), [vec![7; 50]]);
    assert_eq!(pair.ends[0].counters.dropped_oversize.get(), 1);
    assert_eq!(pair.ends[1].counters.dropped_oversize.get(), 1);
}

#[test]
fn a_raised_limit_holds_for_sending_as_well() {
    // W15: the original goes on dropping what is longer than the first limit.
    let mut pair = Pair::connected();
    let [ours, theirs] = pair.open_both("x", wide().with_max_message(10));
    let raised = wide().with_max_message(1000);
    pair.ends[0].update(ours, raised, pair.now).unwrap();
    pair.ends[1].update(theirs, raised, pair.now).unwrap();
    pair.send(0, ours, &[1; 1000]);
    pair.settle();
    assert_eq!(pair.received(1, theirs).len(), 1);
}

#[test]
fn buffers_that_shrink_lose_their_oldest() {
    let mut pair = Pair::connected();
    let [ours, theirs] = pair.open_both("x", wide());
    for message in numbered(6) {
        pair.send(0, ours, &message);
    }
    pair.ends[0]
        .update(ours, wide().with_outgoing_buffer(4), pair.now)
        .unwrap();
    pair.settle();
    pair.ends[1]
        .update(theirs, wide().with_incoming_buffer(2), pair.now)
        .unwrap();
    assert_eq!(pair.received(1, theirs), numbered(6)[4..]);
    assert_eq!(pair.budgets[1].used(), 0);
}

#[test]
fn low_priority_gets_every_eighth_message_and_all_that_is_left() {
    let mut pair = Pair::connected();
    let [high, _] = pair.open_both("high", wide());
    let low = pair.open_with(0, "low", Priority::Low, wide());
    pair.open(1, "low", wide());
    pair.settle();
    for message in numbered(80) {
        pair.send(0, high, &message);
        pair.send(0, low, &message);
    }
    let mut order = Vec::new();
    while let Some((id, ..)) = pair.ends[0].pop() {
        order.push(id == low.id);
    }
    let first = &order[..80];
    assert_eq!(first.iter().filter(|low| **low).count(), 10, "{first:?}");
    assert_eq!(order.iter().filter(|low| **low).count(), 80);
}

#[test]
fn streams_of_one_class_share_what_there_is() {
    let mut pair = Pair::connected();
    let tickets: Vec<Ticket> = (0..10)
        .map(|n| {
            let [ours, _] = pair.open_both(&n.to_string(), wide());
            ours
        })
        .collect();
    pair.settle();
    for ticket in &tickets {
        for message in numbered(1000) {
            pair.send(0, *ticket, &message);
        }
    }
    let mut counts = [0_u32; 10];
    for _ in 0..2000 {
        let (id, ..) = pair.ends[0].pop().unwrap();
        counts[tickets.iter().position(|ticket| ticket.id == id).unwrap()] += 1;
    }
    assert!(counts.iter().all(|count| (120..280).contains(count)), "{counts:?}");
}

#[test]
fn a_request_gets_its_response_past_the_streams_limits_and_no_second_one() {
    let mut pair = Pair::connected();
    let [ours, theirs] = pair.open_both("x", wide().with_max_message(10).with_messages(0.0, 1));
    let policy = ResponsePolicy {
        max_size: 1000,
        expires: pair.now + Duration::from_secs(1),
    };
    pair.ends[0].send(ours, Outbound::Request(policy), Bytes::from_static(b"?"));
    pair.settle();
    let Some(Inbound::Request { handle, payload }) = pair.recv(1, theirs) else {
        panic!("no request");
    };
    assert_eq!(payload, "?");
    for _ in 0..2 {
        let response = Bytes::from(vec![7; 1000]);
        pair.ends[1].send(theirs, Outbound::Response(handle.0), response);
    }
    pair.settle();
    let Some(Inbound::Response(payload)) = pair.recv(0, ours) else {
        panic!("no response");
    };
    assert_eq!(payload, vec![7; 1000]);
    assert_eq!(pair.recv(0, ours), None);
}

#[test]
fn a_response_nobody_asked_for_is_dropped() {
    let mut pair = Pair::connected();
    let [ours, theirs] = pair.open_both("x", wide());
    pair.settle();
    pair.forge(Kind::Response(RequestId([1; 32])), ours.id, b"!").unwrap();
    assert_eq!(pair.recv(1, theirs), None);
    assert_eq!(pair.budgets[1].used(), 0);
}

proptest! {
    #[test]
    fn however_the_wire_is_cut_what_arrives_is_in_order_and_whole(
        steps in prop::collection::vec((0..8_u8, 0..4_usize, 0..20_000_usize), 1..120),
    ) {
        let mut pair = Pair::connected();
        let streams: Vec<[Ticket; 2]> = (0..4).map(|n| pair.open_both(&n.to_string(), wide())).collect();
        // Each message says which stream it is of and which one it is, and fills the rest with what follows from that.
        let message = |stream: usize, n: u32, length: usize| {
            let mut bytes = vec![stream as u8];
            bytes.extend_from_slice(&n.to_be_bytes());
            bytes.extend((0..length).map(|at| (at as u32 ^ n) as u8));
            bytes
        };
        let mut sent = [0_u32; 4];
        let mut next = [0_u32; 4];
        let mut check = |pair: &mut Pair| {
            for (stream, [_, theirs]) in streams.iter().enumerate() {
                for got in pair.received(1, *theirs) {
                    let n = u32::from_be_bytes(got[1..5].try_into().unwrap());
                    assert!(n >= next[stream], "stream {stream}: {n} after {}", next[stream]);
                    assert_eq!(got, message(stream, n, got.len() - 5));
                    next[stream] = n + 1;
                }
            }
        };
        for (what, stream, length) in steps {
            match what {
                0..=2 => {
                    let bytes = message(stream, sent[stream], length);
                    sent[stream] += 1;
                    pair.send(0, streams[stream][0], &bytes);
                }
                3 => pair.write(0),
                4 => pair.write(1),
                5 => pair.arrive(0, length).unwrap(),
                6 => pair.arrive(1, length).unwrap(),
                _ if length < 2_000 => pair.connect(),
                _ => check(&mut pair),
            }
        }
        pair.settle();
        check(&mut pair);
        prop_assert_eq!(pair.budgets[1].used(), 0);
        // The last message of each stream that was sent after the last cut is there.
        for (stream, [ours, _]) in streams.iter().enumerate() {
            pair.send(0, *ours, &message(stream, sent[stream], 3));
        }
        pair.settle();
        check(&mut pair);
        prop_assert_eq!(next, sent.map(|n| n + 1));
    }
}
