//! What a prober can see of the pool, for everything he can send and every way he can end: nothing but time.

use super::pool::{Action, Event, Pool};
use super::prefix::Prefix;
use std::num::NonZeroUsize;
use std::time::Duration;
use web_time::Instant;

const T: Duration = Duration::from_secs(330);
const HEAD: usize = 204;
const LENGTHS: [usize; 18] = [
    0,
    1,
    2,
    31,
    32,
    96,
    97,
    98,
    128,
    203,
    204,
    205,
    1398,
    1500,
    1618,
    1619,
    65_536,
    1 << 20,
];

/// What the checks make of what was sent, once there is enough of it: every order in which they can say no.
#[derive(Debug, Clone, Copy)]
enum Content {
    /// Not a head at all.
    Noise,
    /// A head that opens and was answered before.
    ReplayedHead,
    /// A head in order, and a flight of so many bytes that is not.
    BadFlight(usize),
    /// A head in order behind which 256 others come.
    Displaced,
}

const CONTENTS: [Content; 6] = [
    Content::Noise,
    Content::ReplayedHead,
    Content::BadFlight(0),
    Content::BadFlight(17),
    Content::BadFlight(1414),
    Content::Displaced,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ending {
    Hold,
    /// FIN, RST, half-close: the pool knows one end only.
    After(Duration),
}

/// All that shows: when the pool wanted to be woken, and when it closed.
#[derive(Debug, PartialEq)]
struct Seen {
    timeouts: Vec<Option<Duration>>,
    closed: Duration,
    left_behind: usize,
}

/// A listener as small as it can be: it counts bytes and asks the pool.
fn probe(content: Content, length: usize, pieces: usize, ending: Ending) -> Seen {
    let start = Instant::now();
    let mut pool = Pool::new(NonZeroUsize::new(4096).expect("not zero"), T);
    let (slot, _) = pool.on_accept(start, Prefix::V4([192, 0, 2]), false, 0, 1);
    let mut timeouts = Vec::new();
    let mut arrived = 0;
    for piece in 1..=pieces {
        let before = arrived;
        arrived = length * piece / pieces;
        if before < HEAD && arrived >= HEAD {
            assert_eq!(pool.on_event(slot, Event::Head), Action::Open);
            let verdict = match content {
                Content::Noise | Content::ReplayedHead => Event::Refused,
                Content::BadFlight(_) | Content::Displaced => Event::Admitted,
            };
            let action = pool.on_event(slot, verdict);
            assert!(matches!(action, Action::Drain | Action::ReadFlight { .. }));
        }
        match content {
            Content::BadFlight(n) if before < HEAD + n + 1 && arrived > HEAD + n => {
                assert_eq!(pool.on_event(slot, Event::Refused), Action::Drain);
            }
            Content::Displaced if before < HEAD && arrived >= HEAD => {
                for n in 0..256u32 {
                    let [.., a, b] = n.to_be_bytes();
                    let (other, _) = pool.on_accept(start, Prefix::V4([10, a, b]), false, 1 + n, n.into());
                    pool.on_event(other, Event::Head);
                    pool.on_event(other, Event::Admitted);
                    // Leaves again, so that what is seen below is the first one's.
                    if n < 255 {
                        continue;
                    }
                    pool.remove_where(|name| *name > 0);
                }
            }
            _ => {}
        }
        timeouts.push(pool.next_timeout().map(|at| at - start));
    }
    let closed = match ending {
        Ending::After(time) => {
            assert_eq!(pool.pop_expired(start + time, |_| false), None);
            assert_eq!(pool.on_event(slot, Event::Ended), Action::Close(0));
            time
        }
        Ending::Hold => {
            let at = pool.next_timeout().expect("is there");
            assert_eq!(pool.pop_expired(at - Duration::from_nanos(1), |_| false), None);
            assert_eq!(pool.pop_expired(at, |_| false), Some(0));
            at - start
        }
    };
    timeouts.dedup();
    let left_behind = pool.len() + pool.flights();
    Seen {
        timeouts,
        closed,
        left_behind,
    }
}

#[test]
fn whatever_is_sent_in_whatever_pieces_the_deadline_and_the_close_are_the_same() {
    let endings = [
        Ending::Hold,
        Ending::After(Duration::ZERO),
        Ending::After(Duration::from_millis(7)),
        Ending::After(T - Duration::from_nanos(1)),
    ];
    for ending in endings {
        let closed = if let Ending::After(time) = ending { time } else { T };
        let expected = Seen {
            timeouts: vec![Some(T)],
            closed,
            left_behind: 0,
        };
        for content in CONTENTS {
            for length in LENGTHS {
                for pieces in [1, 2, 3, length.clamp(1, 2000)] {
                    let seen = probe(content, length, pieces, ending);
                    assert_eq!(
                        seen, expected,
                        "{content:?}, {length} bytes in {pieces} pieces, {ending:?}"
                    );
                }
            }
        }
    }
}
