//! The bounded pool of sockets that have not authenticated: who may stay, until when, and what is done with them.
//!
//! Pure: the caller says what happened and what time it is, and does what an [`Action`] says. A socket is in one of
//! six states, and no state shows on the wire but the one that is answered:
//!
//! ```text
//! accept ─► Waiting ─Head─► HeadIn ─Admitted─► Admitted ─Knocked─► Answering ─► leaves, authenticated
//!              │              │ └──────────Knocked (v2 has no flight)──┘  │  │
//!              └──Refused─────┴────────► Draining ◄──Refused, displaced───┘  │
//!                                            └──────Refused: TLS failed──────┘
//!
//! in every state: evicted ─► closed
//! in every state but Answering: FIN or RST ─► closed at once; accept + T ─► closed
//! Answering ─accept + T─► Overtime ─► leaves, authenticated; Refused ─► closed
//! ```
//!
//! A socket that is being answered is the Swarm's. Its handshake has a time limit of its own, and it
//! keeps its place until that has ended.
//!
//! From HeadIn a socket goes back to Waiting when its head turns out to be longer than it looked.
//!
//! "Closed" is always the same: shut down writing, read until there is no more, close.

use super::limits::later;
use super::places::Places;
pub(crate) use super::places::Slot;
use super::prefix::Prefix;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;
use web_time::Instant;

/// Flights that may be on their way at once. Each has a buffer of up to 4 kB: 1 MB in all.
pub(crate) const MAX_FLIGHTS: usize = 256;
/// How many go when the system has no descriptor left for the next one.
pub(crate) const EVICTED_FOR_DESCRIPTORS: usize = 64;
/// How many are looked at to find one to evict.
const SAMPLE: usize = 8;
/// Once the pool is half full, no prefix takes more than this part of it.
const SHARE: usize = 16;

/// What the listener has learnt about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// As many bytes as a head has are here.
    Head,
    /// A check has said no, whichever it was; or TLS has failed, after the answer.
    Refused,
    /// It was not the head that it looked like, and more of it has to come.
    Undecided,
    /// The head is in order and its sender may come in. The flight is still to come.
    Admitted,
    /// The knock is complete, was never seen before, and is remembered now.
    Knocked,
    /// The other end has sent FIN or RST.
    Ended,
}

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<T> {
    /// Look at the head when its turn comes.
    Open,
    /// Go on reading the head.
    ReadHead,
    /// Take a buffer and read the flight into it. Who is `displaced` gives its buffer back for that, and is read from
    /// and not listened to from now on.
    ReadFlight { displaced: Option<Slot> },
    /// Read and discard; give back what buffers there are.
    Drain,
    /// Answer it: the first byte that goes out. It keeps its place until it is through, and is drained if it fails.
    Answer,
    /// It has left the pool and is closed now.
    Close(T),
    /// The socket has left before, or is not listened to any more.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    HeadIn,
    Admitted,
    Answering,
    /// Still being answered, at accept + T.
    Overtime,
    Draining,
}

#[derive(Debug)]
struct Entry<T> {
    state: State,
    socket: T,
}

/// The pool. See the module.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    capacity: usize,
    close_after: Duration,
    places: Places<Entry<T>>,
    /// Who is admitted and has a buffer, the longest so first.
    flights: VecDeque<Slot>,
    latest: Option<Instant>,
}

impl<T> Pool<T> {
    /// A pool of at most `capacity`, each of whom is closed `close_after` after it was accepted.
    pub(crate) fn new(capacity: NonZeroUsize, close_after: Duration) -> Self {
        Self {
            capacity: capacity.get().min(u32::MAX as usize - 1),
            close_after,
            places: Places::new(),
            flights: VecDeque::new(),
            latest: None,
        }
    }

    /// Takes a new one in, always. Returns its slot and, when there was no room, the one that is closed for it.
    ///
    /// `known` says that the prefix has authenticated lately: none of its own goes while a stranger's can. That does not
    /// lift the limit on what one prefix holds, or a stranger in an honest peer's prefix could take the whole pool.
    pub(crate) fn on_accept(
        &mut self,
        now: Instant,
        prefix: Prefix,
        known: bool,
        socket: T,
        draw: u64,
    ) -> (Slot, Option<T>) {
        let mut draw = Draw(draw);
        let (len, own) = (self.places.len(), self.places.held_by(prefix));
        let victim = if len >= self.capacity / 2 && own >= self.share() {
            self.places.of_prefix(prefix, draw.below(own))
        } else if len >= self.capacity {
            self.victim(&mut draw)
        } else {
            None
        };
        let evicted = victim.and_then(|slot| self.remove(slot));
        // They leave in the order in which they came, so time must not go back between two of them.
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        let state = State::Waiting;
        let deadline = later(now, self.close_after);
        (
            self.places.insert(deadline, prefix, known, Entry { state, socket }),
            evicted,
        )
    }

    /// Says what happened to a socket. What does not fit its state changes nothing.
    pub(crate) fn on_event(&mut self, slot: Slot, event: Event) -> Action<T> {
        let Some(entry) = self.places.get_mut(slot) else {
            return Action::Nothing;
        };
        match (entry.state, event) {
            (_, Event::Ended) | (State::Overtime, Event::Refused) => {
                self.remove(slot).map_or(Action::Nothing, Action::Close)
            }
            (State::Waiting, Event::Head) => {
                entry.state = State::HeadIn;
                Action::Open
            }
            (State::HeadIn, Event::Undecided) => {
                entry.state = State::Waiting;
                Action::ReadHead
            }
            (State::HeadIn, Event::Admitted) => {
                entry.state = State::Admitted;
                let displaced = self.take_flight(slot);
                Action::ReadFlight { displaced }
            }
            (State::HeadIn | State::Admitted, Event::Knocked) => {
                entry.state = State::Answering;
                self.flights.retain(|other| *other != slot);
                Action::Answer
            }
            (State::Waiting | State::HeadIn | State::Admitted | State::Answering, Event::Refused) => {
                entry.state = State::Draining;
                self.flights.retain(|other| *other != slot);
                Action::Drain
            }
            _ => Action::Nothing,
        }
    }

    /// Makes whoever is here from this prefix known: one of its peers has authenticated.
    pub(crate) fn on_authenticated(&mut self, prefix: Prefix) {
        // Behind a prefix that stands for everybody without an address there is nobody in particular.
        if prefix != Prefix::Unknown {
            self.places.promote(prefix);
        }
    }

    /// When `pop_expired` wants to be called next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.places.first().map(|(_, deadline)| deadline)
    }

    /// Takes out the next one whose time is over, to be closed. One that is being answered keeps
    /// its place if `stays` says so: it ends with its handshake, or has to go as any other.
    pub(crate) fn pop_expired(&mut self, now: Instant, mut stays: impl FnMut(&T) -> bool) -> Option<T> {
        while let Some((slot, deadline)) = self.places.first()
            && deadline <= now
        {
            match self.places.get_mut(slot) {
                Some(entry) if entry.state == State::Answering && stays(&entry.socket) => {
                    entry.state = State::Overtime;
                    self.places.keep(slot);
                }
                _ => return self.remove(slot),
            }
        }
        None
    }

    /// Takes out up to `n`, to be closed: the system has no descriptors left.
    pub(crate) fn evict(&mut self, n: usize, draw: u64) -> Vec<T> {
        let mut draw = Draw(draw);
        let mut evicted = Vec::new();
        while evicted.len() < n
            && let Some(socket) = self.victim(&mut draw).and_then(|slot| self.remove(slot))
        {
            evicted.push(socket);
        }
        evicted
    }

    /// Takes out one for the caller's own reasons.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        let entry = self.places.remove(slot)?;
        if entry.state == State::Admitted {
            self.flights.retain(|other| *other != slot);
        }
        Some(entry.socket)
    }

    /// Takes out all that `gone` picks: a listener that closes takes its own along. Looks at everybody.
    pub(crate) fn remove_where(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<T> {
        let slots: Vec<_> = self.places.slots().collect();
        let mut removed = Vec::new();
        for slot in slots {
            if self.get_mut(slot).is_some_and(|socket| gone(socket)) {
                removed.extend(self.remove(slot));
            }
        }
        removed
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.places.get_mut(slot).map(|entry| &mut entry.socket)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many have a buffer.
    #[cfg(test)]
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    #[cfg(test)]
    pub(super) fn held_by(&self, prefix: Prefix) -> usize {
        self.places.held_by(prefix)
    }

    pub(super) fn share(&self) -> usize {
        (self.capacity / SHARE).max(1)
    }

    /// Gives `slot` a buffer. When all are taken, the one that has waited longest for its flight loses its own: an
    /// honest flight comes right behind its head, and 256 peers that send heads only must not keep the rest out.
    fn take_flight(&mut self, slot: Slot) -> Option<Slot> {
        let displaced = if self.flights.len() >= MAX_FLIGHTS {
            self.flights.pop_front()
        } else {
            None
        };
        if let Some(entry) = displaced.and_then(|slot| self.places.get_mut(slot)) {
            entry.state = State::Draining;
        }
        self.flights.push_back(slot);
        displaced
    }

    /// Who goes: of some drawn by lot, one whose prefix holds the most. By lot and not by age, so that how long one was
    /// left alone says nothing about the others; and as all of them were drawn by lot, so is the choice among equals.
    fn victim(&self, draw: &mut Draw) -> Option<Slot> {
        let strangers = self.places.strangers();
        let (known, of) = if strangers > 0 {
            (false, strangers)
        } else {
            (true, self.places.len())
        };
        let sample = (0..SAMPLE).filter_map(|_| self.places.of_class(known, draw.below(of)));
        sample.max_by_key(|(held, _)| *held).map(|(_, slot)| slot)
    }
}

/// Many numbers out of one that the caller has drawn (SplitMix64). Nobody outside sees any of them.
struct Draw(u64);

impl Draw {
    /// A number below `n`, or 0.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The upper half of the product is below `n`.
        ((u128::from(z) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests;
