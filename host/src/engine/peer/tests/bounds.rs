//! What an other end cannot make us do: memory, work and streams have bounds.

use super::*;
use crate::engine::bucket::WireBucket;

#[test]
fn a_stream_opened_under_anothers_name_is_not_opened() {
    let mut pair = Pair::connected();
    let theirs = pair.open(1, "x", wide());
    pair.forge(Kind::Open, theirs.id, b"y").unwrap();
    pair.send(1, theirs, b"!");
    pair.write(1);
    assert_eq!(pair.wires[1].len(), HEADER + 1, "the open of x, and no message");
}

#[test]
fn memory_follows_what_arrived_and_not_what_was_announced() {
    // W6: the original allocates what the header says.
    let mut pair = Pair::connected();
    let theirs = pair.open(1, "x", wide().with_max_message(1 << 30));
    let mut wire = Vec::new();
    let (kind, stream, length) = (Kind::Message, theirs.id, 1 << 30);
    Header { kind, stream, length }.encode(&mut wire);
    wire.extend_from_slice(&[0; 10_000]);
    receive(&mut pair.ends[1], &wire, pair.now).unwrap();
    assert!(pair.budgets[1].used() <= 16 * 10_000, "{}", pair.budgets[1].used());
    pair.cut();
    assert_eq!(pair.budgets[1].used(), 0);
}

#[test]
fn a_message_that_the_budget_has_no_room_for_is_dropped_and_the_connection_goes_on() {
    let mut pair = Pair::with_budget(100_000);
    pair.connect();
    let [ours, theirs] = pair.open_both("x", wide());
    for length in [60_000, 1000, 90_000, 2000] {
        pair.send(0, ours, &vec![3; length]);
    }
    pair.settle();
    let lengths: Vec<usize> = pair.received(1, theirs).iter().map(Vec::len).collect();
    assert_eq!(lengths, [1000, 2000]);
    assert_eq!(pair.ends[1].counters.dropped_memory.get(), 2);
    assert_eq!(pair.budgets[1].used(), 0);
}

#[test]
fn no_turn_takes_more_than_some_work_and_no_end_of_a_frame_is_left_over() {
    let mut pair = Pair::connected();
    let theirs = pair.open(1, "x", wide());
    for (kind, payload, most) in [
        (Kind::Message, &b""[..], WORK),
        (Kind::Message, b"!", WORK),
        (Kind::Open, b"x", WORK / 4),
    ] {
        let (stream, length) = (theirs.id, payload.len());
        let mut wire = Vec::new();
        for _ in 0..most + 1 {
            Header { kind, stream, length }.encode(&mut wire);
            wire.extend_from_slice(payload);
        }
        let frame = wire.len() / (most + 1);
        let mut rest = &wire[..];
        let work = pair.ends[1].receive(&mut rest, pair.now).unwrap();
        assert_eq!((work, rest.len()), (WORK, frame), "{kind:?}");
        pair.ends[1].receive(&mut rest, pair.now).unwrap();
        assert!(rest.is_empty());
    }
    assert_eq!(pair.received(1, theirs).len(), 2 * (WORK + 1));
}

#[test]
fn a_closed_stream_gives_its_memory_back_even_in_the_middle_of_a_message() {
    let mut pair = Pair::connected();
    let [ours, theirs] = pair.open_both("x", wide());
    pair.settle();
    for _ in 0..3 {
        pair.send(0, ours, &[1; 10_000]);
        pair.write(0);
    }
    pair.arrive(0, 25_000).unwrap();
    assert!(pair.budgets[1].used() > 20_000);
    pair.ends[1].close(theirs);
    pair.settle();
    assert_eq!(pair.budgets[1].used(), 0);
}

#[test]
fn opens_and_closes_are_limited_at_once_and_not_for_ever() {
    // W7: the original never forgets one.
    let mut pair = Pair::connected();
    let stream = StreamId([1; 32]);
    for n in 0..OPENS_AND_CLOSES {
        assert_eq!(pair.forge(Kind::Close, stream, b""), Ok(()), "{n}");
    }
    pair.now += Duration::from_millis(301);
    assert_eq!(pair.forge(Kind::Close, stream, b""), Ok(()));
    assert_eq!(pair.forge(Kind::Close, stream, b""), Err(Violation::OpensAndCloses));
}

#[test]
fn what_is_open_there_is_bounded() {
    let mut pair = Pair::connected();
    for n in 0..2 * OPENS_AND_CLOSES {
        let name = n.to_string();
        let stream = StreamId::new(&key(1), &key(2), name.as_bytes());
        pair.forge(Kind::Open, stream, name.as_bytes()).unwrap();
        pair.now += Duration::from_secs(1);
    }
    let remote = &pair.ends[1].connection.as_ref().unwrap().remote;
    assert_eq!(remote.len(), REMOTE_STREAMS);
}

#[test]
fn records_without_content_are_found_out() {
    let mut pair = Pair::connected();
    assert_eq!(pair.ends[1].check_overhead(READ_AHEAD), Ok(()));
    assert!(pair.ends[1].check_overhead(READ_AHEAD + 1).is_err());
    let stream = StreamId([1; 32]);
    pair.forge(Kind::Message, stream, &[0; 1000]).unwrap();
    assert_eq!(pair.ends[1].check_overhead(READ_AHEAD + 2000), Ok(()));
}

#[test]
fn the_2001st_stream_and_a_second_of_the_same_name_are_refused() {
    let mut pair = Pair::new();
    for n in 0..MAX_STREAMS_PER_PEER {
        pair.open(0, &n.to_string(), wide());
    }
    let (peer, now) = (id(9), pair.now);
    let mut open = |name| pair.ends[0].open(&peer, name, Priority::Default, wide(), now);
    assert_eq!(open("one more"), Err(crate::OpenError::TooManyStreams(peer)));
    let name = "7".to_owned();
    assert_eq!(open("7"), Err(crate::OpenError::AlreadyOpen { peer, name }));
}

/// How many bytes more come over the wire of end 0 before it is too much.
fn flood(pair: &mut Pair, wire: &mut WireBucket) -> usize {
    const PIECE: usize = 1 << 10;
    let now = pair.now;
    let taken = (0..).take_while(|_| pair.ends[0].allows(wire, PIECE, now));
    taken.count() * PIECE
}

/// End 0 asks, and end 1 answers with so many bytes, which all come over the wire.
fn ask(pair: &mut Pair, [ours, theirs]: [Ticket; 2], wire: &mut WireBucket, bytes: usize) {
    let policy = ResponsePolicy {
        max_size: bytes,
        expires: pair.now + Duration::from_secs(1),
    };
    pair.ends[0].send(ours, Outbound::Request(policy), Bytes::from_static(b"?"));
    pair.settle();
    let Some(Inbound::Request { handle, .. }) = pair.recv(1, theirs) else {
        panic!("no request");
    };
    pair.ends[1].send(theirs, Outbound::Response(handle.0), Bytes::from(vec![7; bytes]));
    pair.write(1);
    while !pair.wires[1].is_empty() {
        let piece = pair.wires[1].len().min(16 << 10);
        assert!(pair.ends[0].allows(wire, piece, pair.now), "it was asked for");
        pair.arrive(1, piece).unwrap();
    }
    assert!(pair.recv(0, ours).is_some(), "the answer");
}

#[test]
fn answers_that_have_come_leave_no_more_room_on_the_wire_than_there_was_before_them() {
    for answer in [100_000, 4 << 20] {
        let mut pair = Pair::connected();
        let tickets = pair.open_both("x", Limits::default());
        pair.settle();
        let (zero, mut wire) = (pair.now, WireBucket::new(pair.now));
        wire.add_stream(&Limits::default(), zero);
        let mut fresh = WireBucket::new(zero);
        fresh.add_stream(&Limits::default(), zero);
        let before = flood(&mut pair, &mut fresh);
        for _ in 0..10 {
            ask(&mut pair, tickets, &mut wire, answer);
        }
        // An honest peer has its whole burst, and none has more.
        let after = flood(&mut pair, &mut wire);
        assert!(
            (before..=before + (1 << 20)).contains(&after),
            "{answer}: {after}, and {before} before"
        );
    }
}
