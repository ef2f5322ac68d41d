//! Two honest ends under random use, against what a user expects of them: each direction of a stream is a queue.

use super::{Two, read, tell, waker};
use crate::yamux::session::Session;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::task::Poll;
use std::time::Duration;

#[derive(Debug, Clone)]
enum Step {
    Open { dialer: bool },
    Accept { dialer: bool },
    Send { dialer: bool, stream: usize, n: usize },
    Read { dialer: bool, stream: usize },
    Finish { dialer: bool, stream: usize },
    Forget { dialer: bool, stream: usize },
    Talk { dialer: bool },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let side = any::<bool>;
    prop_oneof![
        2 => side().prop_map(|dialer| Step::Open { dialer }),
        2 => side().prop_map(|dialer| Step::Accept { dialer }),
        8 => (side(), 0..6_usize, prop_oneof![1..50_usize, 1..300_000_usize])
            .prop_map(|(dialer, stream, n)| Step::Send { dialer, stream, n }),
        6 => (side(), 0..6_usize).prop_map(|(dialer, stream)| Step::Read { dialer, stream }),
        1 => (side(), 0..6_usize).prop_map(|(dialer, stream)| Step::Finish { dialer, stream }),
        1 => (side(), 0..6_usize).prop_map(|(dialer, stream)| Step::Forget { dialer, stream }),
        4 => side().prop_map(|dialer| Step::Talk { dialer }),
        1 => (0..200_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// One end's view: the streams it holds, and of each how much went in and came out.
#[derive(Default)]
struct End {
    held: Vec<u32>,
    sent: HashMap<u32, u64>,
    read: HashMap<u32, u64>,
    finished: HashSet<u32>,
    /// Let go before the other end had closed it: the other end sees a reset.
    dropped: HashSet<u32>,
    ended: HashSet<u32>,
}

/// The byte at a place of a direction of a stream: which direction shows in it.
fn byte(dialer: bool, stream: u32, at: u64) -> u8 {
    (at % 241) as u8 ^ (stream % 13) as u8 ^ if dialer { 0x80 } else { 0 }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn honest_ends_never_fault_and_every_direction_is_a_queue(steps in prop::collection::vec(step(), 1..150)) {
        let mut two = Two::new();
        let mut ends = [End::default(), End::default()];
        for step in steps {
            match step {
                Step::Open { dialer } => {
                    let now = two.now;
                    if let Poll::Ready(id) = session(&mut two, dialer).open(now, &waker()) {
                        ends[usize::from(dialer)].held.push(id.expect("open"));
                    }
                }
                Step::Accept { dialer } => {
                    if let Poll::Ready(id) = session(&mut two, dialer).accept(&waker()) {
                        ends[usize::from(dialer)].held.push(id.expect("open"));
                    }
                }
                Step::Send { dialer, stream, n } => {
                    let [other, end] = pick(&mut ends, dialer);
                    let Some(&id) = end.held.get(stream) else { continue };
                    let from = end.sent.entry(id).or_default();
                    let bytes: Vec<u8> = (*from..*from + n as u64).map(|at| byte(dialer, id, at)).collect();
                    let mut bytes = &bytes[..];
                    let now = two.now;
                    let (from_session, to) = both(&mut two, dialer);
                    while !bytes.is_empty() {
                        match tell(from_session, to, now, Some((id, bytes))) {
                            Ok((_, sent)) => {
                                prop_assert!(!end.finished.contains(&id), "nothing goes out after the end");
                                *from += sent as u64;
                                bytes = &bytes[sent..];
                                if sent == 0 { break }
                            }
                            Err(_) => {
                                prop_assert!(end.finished.contains(&id) || other.dropped.contains(&id));
                                break;
                            }
                        }
                    }
                }
                Step::Read { dialer, stream } => {
                    let [other, end] = pick(&mut ends, dialer);
                    let Some(&id) = end.held.get(stream) else { continue };
                    let now = two.now;
                    match read(session(&mut two, dialer), id, now) {
                        Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                            prop_assert!(other.finished.contains(&id), "no end that nobody made");
                            prop_assert_eq!(end.read.get(&id), other.sent.get(&id).filter(|n| **n > 0), "nothing is missing");
                            end.ended.insert(id);
                        }
                        Poll::Ready(Ok(bytes)) => {
                            prop_assert!(!end.ended.contains(&id), "nothing comes after the end");
                            let at = end.read.entry(id).or_default();
                            for got in bytes {
                                prop_assert_eq!(got, byte(!dialer, id, *at));
                                *at += 1;
                            }
                            prop_assert!(*at <= other.sent[&id]);
                        }
                        Poll::Ready(Err(_)) => prop_assert!(other.dropped.contains(&id), "no reset that nobody made"),
                        Poll::Pending => {}
                    }
                }
                Step::Finish { dialer, stream } => {
                    let [other, end] = pick(&mut ends, dialer);
                    let Some(&id) = end.held.get(stream) else { continue };
                    match session(&mut two, dialer).finish(id) {
                        Ok(()) => { end.finished.insert(id); }
                        Err(_) => prop_assert!(other.dropped.contains(&id)),
                    }
                }
                Step::Forget { dialer, stream } => {
                    let end = &mut ends[usize::from(dialer)];
                    if stream >= end.held.len() { continue }
                    let id = end.held.remove(stream);
                    session(&mut two, dialer).forget(id);
                    end.dropped.insert(id);
                    // Who lets go of a stream that the other end has closed closes it.
                    end.finished.insert(id);
                }
                Step::Talk { dialer } => {
                    let now = two.now;
                    let (from, to) = both(&mut two, dialer);
                    tell(from, to, now, None).expect("no data");
                }
                Step::Wait { ms } => two.now += Duration::from_millis(ms),
            }
            prop_assert_eq!(two.dialer.ended(), None);
            prop_assert_eq!(two.listener.ended(), None);
        }
        // When all has been said, nobody waits to write for one who is gone.
        while !(two.dialer_says().is_empty() && two.listener_says().is_empty()) {}
        for dialer in [true, false] {
            let [other, end] = pick(&mut ends, dialer);
            for id in end.held.iter().filter(|id| other.dropped.contains(id)) {
                prop_assert!(session(&mut two, dialer).may_send(*id, 1, &waker()).is_ready(), "it waits for ever");
            }
        }
    }
}

fn session(two: &mut Two, dialer: bool) -> &mut Session {
    if dialer { &mut two.dialer } else { &mut two.listener }
}

fn both(two: &mut Two, dialer: bool) -> (&mut Session, &mut Session) {
    if dialer {
        (&mut two.dialer, &mut two.listener)
    } else {
        (&mut two.listener, &mut two.dialer)
    }
}

/// The other end, and this one.
fn pick(ends: &mut [End; 2], dialer: bool) -> [&mut End; 2] {
    let [listener, own_dialer] = ends;
    if dialer {
        [listener, own_dialer]
    } else {
        [own_dialer, listener]
    }
}
