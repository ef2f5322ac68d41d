//! An other end that does not keep to the protocol, or keeps to it in a way that nobody would.

use super::super::Config;
use super::super::ProtocolError;
use super::super::frame::{Header, RST, SYN};
use super::super::session::{Body, Ended, Session};
use super::super::window::INITIAL;
use super::{Two, hear, read, ready, waker};
use libp2p_core::Endpoint;
use std::io;
use web_time::Instant;

#[test]
fn every_violation_ends_the_connection_under_its_name_and_the_other_end_is_told() {
    let over = INITIAL;
    let cases: [(&[Header], ProtocolError); 7] = [
        (&[Header::data(2, SYN, 0)], ProtocolError::NotYours { stream: 2 }),
        (
            &[Header::data(1, SYN, 0), Header::data(1, SYN, 0)],
            ProtocolError::Reopened { stream: 1 },
        ),
        (
            &[Header::data(1, SYN, over + 1)],
            ProtocolError::WindowExceeded { stream: 1 },
        ),
        (
            &[Header::data(1, SYN, over), Header::data(1, 0, 1)],
            ProtocolError::WindowExceeded { stream: 1 },
        ),
        (
            &[Header::window_update(1, SYN, u32::MAX)],
            ProtocolError::WindowOverflow { stream: 1 },
        ),
        (
            &[Header::data(1, SYN | super::FIN, 0), Header::data(1, 0, 1)],
            ProtocolError::DataAfterEnd { stream: 1 },
        ),
        // More than any stream ever could, for one that is not there.
        (
            &[Header::data(77, 0, (16 << 20) + 1)],
            ProtocolError::WindowExceeded { stream: 77 },
        ),
    ];
    for (headers, expected) in cases {
        let mut session = Session::new(Endpoint::Listener, &Config::default());
        let (last, before) = headers.split_last().expect("one");
        let now = Instant::now();
        for header in before {
            session.header(*header, now).expect("is allowed");
        }
        assert_eq!(session.header(*last, now), Err(expected));
        assert_eq!(session.ended(), Some(Ended::Broken(io::ErrorKind::InvalidData)));
        assert_eq!(session.take_unsaid(), Header::go_away(1).encode());
    }
}

#[test]
fn more_than_a_window_for_a_stream_that_is_gone_is_skipped_as_far_as_it_can_be_honest() {
    let mut session = Session::new(Endpoint::Listener, &Config::default());
    let now = Instant::now();
    assert_eq!(session.header(Header::data(77, 0, 16 << 20), now), Ok(Body::Skip));
    assert_eq!(session.take_unsaid(), Header::data(77, RST, 0).encode());
    assert_eq!(session.header(Header::data(77, RST, 5), now), Ok(Body::Skip));
    assert_eq!(
        session.header(Header::window_update(77, 0, u32::MAX), now),
        Ok(Body::None)
    );
    assert!(!session.has_unsaid());
}

#[test]
fn who_makes_us_talk_and_does_not_listen_is_not_listened_to() {
    let mut session = Session::new(Endpoint::Listener, &Config::default());
    let now = Instant::now();
    let mut pings = 0_u32;
    while session.listens() {
        session.header(Header::ping(SYN, pings), now).expect("is allowed");
        pings += 1;
        assert!(pings < 10_000, "and this has an end");
    }
    // Taken is not sent.
    assert_eq!(session.take_unsaid().len(), pings as usize * 12);
    assert!(!session.listens());
    session.said();
    assert!(session.listens());
}

#[test]
fn what_was_taken_and_not_sent_counts_with_what_came_behind_it() {
    let mut session = Session::new(Endpoint::Listener, &Config::default());
    let now = Instant::now();
    let mut pings = 0_u32;
    while session.listens() {
        session.header(Header::ping(SYN, pings), now).expect("is allowed");
        session.take_unsaid();
        pings += 1;
        assert!(pings < 10_000, "and this has an end");
    }
    session.header(Header::ping(SYN, pings), now).expect("is allowed");
    session.said();
    assert!(session.listens(), "what was sent does not count any more");
    for more in 1..pings {
        assert!(session.listens());
        session.header(Header::ping(SYN, more), now).expect("is allowed");
    }
    assert!(!session.listens(), "and what was not taken yet still does");
}

#[test]
fn who_opens_streams_and_does_not_hear_that_they_end_is_not_listened_to() {
    // Closed by us, closed by our dropping it, and reset by that.
    for (flags, finishes) in [(super::FIN, true), (super::FIN, false), (0, false)] {
        let mut session = Session::new(Endpoint::Listener, &Config::default());
        let now = Instant::now();
        for id in (1..).step_by(2) {
            if !session.listens() {
                break;
            }
            session
                .header(Header::data(id, SYN | flags, 0), now)
                .expect("is allowed");
            assert_eq!(ready(session.accept(&waker())).expect("accepts"), id);
            if finishes {
                session.finish(id).expect("open");
            }
            session.forget(id);
            session.take_unsaid();
            assert!(id < 10_000, "and this has an end");
        }
    }
}

#[test]
fn dead_streams_are_remembered_in_a_bounded_amount_of_memory() {
    let mut session = Session::new(Endpoint::Listener, &Config::default().with_max_substreams(usize::MAX));
    let now = Instant::now();
    let told = |session: &mut Session, id| {
        assert_eq!(session.header(Header::data(id, 0, 1), now), Ok(Body::Skip));
        session.said();
        !session.take_unsaid().is_empty()
    };
    assert!((1..100_001).all(|id| told(&mut session, id)));
    assert!(!told(&mut session, 100_000), "it was told");
    assert!(told(&mut session, 1), "that is forgotten");
}

#[test]
fn streams_opened_and_reset_at_once_take_a_bounded_amount_of_memory() {
    let mut session = Session::new(Endpoint::Listener, &Config::default());
    let now = Instant::now();
    for id in (1..200_001).step_by(2) {
        session.header(Header::data(id, SYN, 0), now).expect("is allowed");
        session.header(Header::data(id, RST, 0), now).expect("is allowed");
        if !session.listens() {
            session.take_unsaid();
            session.said();
        }
    }
    let mut accepted = 0;
    while let std::task::Poll::Ready(Ok(id)) = session.accept(&waker()) {
        let error = ready(session.receive(id, 0, now, &waker())).expect_err("it is gone");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        session.forget(id);
        accepted += 1;
    }
    assert_eq!(accepted, 256);
}

#[test]
fn whatever_comes_nothing_panics_and_nothing_is_granted_twice() {
    // What the fuzzer does, in small: all short sequences over a few headers.
    let headers = [
        Header::data(1, SYN, 5),
        Header::data(1, 0, INITIAL - 5),
        Header::data(1, super::FIN, 0),
        Header::data(1, RST, 3),
        Header::data(2, super::ACK, 1),
        Header::window_update(1, SYN, 1),
        Header::window_update(2, super::ACK | super::FIN, u32::MAX - INITIAL),
        Header::ping(SYN, 1),
        Header::ping(super::ACK, 0),
        Header::go_away(2),
    ];
    let sequences = headers.len().pow(4);
    for sequence in 0..sequences {
        let mut two = Two::new();
        let ours = ready(two.listener.open(two.now, &waker())).expect("opens");
        two.listener_sends(ours, b"x").expect("credit");
        let mut rest = sequence;
        for _ in 0..4 {
            let header = headers[rest % headers.len()];
            rest /= headers.len();
            let mut wire = header.encode().to_vec();
            if header.kind == super::Kind::Data {
                wire.resize(12 + header.length as usize, 9);
            }
            if hear(&mut two.listener, &wire, two.now).is_err() {
                break;
            }
            let _ = read(&mut two.listener, 1, two.now);
        }
        two.listener.forget(ours);
        two.listener.forget(1);
    }
}
