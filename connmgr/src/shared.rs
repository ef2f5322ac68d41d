//! What the behaviour and its handles share.

use crate::config::{Config, Order, TrimTarget};
use crate::core::{Book, Dials, HardLimit, Mode, Room, Rules, Seen, Stamp, excess};
use crate::count::Registry;
use crate::event::{Reason, Trimmed};
use crate::handle::HardLimitReached;
use crate::info::{Explanation, Info};
use crate::user_code::{Hook, HookPanics};
use futures::channel::oneshot;
use futures::task::AtomicWaker;
use libp2p_identity::PeerId;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct Shared {
    pub(crate) book: Book,
    pub(crate) dials: Dials,
    pub(crate) activity: Registry,
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) target: TrimTarget,
    pub(crate) hard_limit: Option<HardLimit>,
    pub(crate) order: Option<Order>,
    /// Nanoseconds of its stamp plus one; 0 before the first.
    pub(crate) last_trim: AtomicU64,
    closed: AtomicBool,
    /// Whether there is anything for the behaviour to look at: requests, changed protections, a close.
    called: AtomicBool,
    /// How often the Swarm has polled the behaviour.
    polls: AtomicU64,
    waker: AtomicWaker,
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    /// Nobody will answer: the behaviour is gone, or the manager closed.
    ended: bool,
    waiting: Vec<(Request, oneshot::Sender<Trimmed>)>,
}

/// Which trim somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Normal,
    Forced,
}

impl Shared {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            book: Book::new(config),
            dials: Dials::default(),
            activity: Registry::new(),
            low: config.low,
            high: config.high,
            target: config.target,
            hard_limit: config.hard_limit.map(HardLimit::new),
            order: config.order.clone(),
            last_trim: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            called: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            requests: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Stamp {
        self.book.clock.now()
    }

    pub(crate) fn rules(&self, mode: Mode, now: Stamp) -> Rules<'_> {
        Rules {
            book: &self.book,
            dials: &self.dials,
            order: self.order.as_ref(),
            mode,
            now,
        }
    }

    /// A sender that is dropped answers with nothing closed.
    pub(crate) fn request(&self, request: Request, answer: oneshot::Sender<Trimmed>) {
        if self.polls() == 0 && self.book.open() + self.book.closing() == 0 {
            // No Swarm runs yet. The caller may be about to start it, and waits here.
            return drop(answer);
        }
        let mut requests = self.requests();
        if requests.ended {
            drop(requests);
            return drop(answer);
        }
        requests.waiting.push((request, answer));
        drop(requests);
        self.wake();
    }

    pub(crate) fn take_requests(&self) -> Vec<(Request, oneshot::Sender<Trimmed>)> {
        std::mem::take(&mut self.requests().waiting)
    }

    /// From here on nobody answers.
    pub(crate) fn end_requests(&self) {
        let mut requests = self.requests();
        requests.ended = true;
        let waiting = std::mem::take(&mut requests.waiting);
        drop(requests);
        for (_, answer) in waiting {
            self.panics().call(Hook::Waker, || drop(answer));
        }
    }

    /// Whether the behaviour is gone, or the manager closed.
    #[cfg(feature = "metrics")]
    pub(crate) fn has_ended(&self) -> bool {
        self.requests().ended
    }

    pub(crate) fn panics(&self) -> &Arc<HookPanics> {
        &self.book.panics
    }

    /// Wakes the tasks that wait for the outcome of a trim.
    pub(crate) fn answer(&self, waiting: impl IntoIterator<Item = oneshot::Sender<Trimmed>>, trimmed: Trimmed) {
        for waiting in waiting {
            self.panics().call(Hook::Waker, || waiting.send(trimmed));
        }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.end_requests();
        self.wake();
    }

    pub(crate) fn wake(&self) {
        self.called.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// How often the Swarm has polled the behaviour.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    pub(crate) fn polled(&self) {
        self.polls.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether somebody called since the last time. The behaviour is woken when somebody does.
    pub(crate) fn poll_called(&self, cx: &std::task::Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.called.load(Ordering::Relaxed) && self.called.swap(false, Ordering::Acquire)
    }

    pub(crate) fn info(&self) -> Info {
        let last_trim = self.last_trim.load(Ordering::Relaxed);
        Info {
            low: self.low,
            high: self.high,
            last_trim: last_trim
                .checked_sub(1)
                .map(|nanos| self.book.clock.instant(Stamp(nanos))),
            grace: self.book.common.grace,
            connections: self.book.open(),
            closing: self.book.closing(),
            refused_tags: self.book.refused_tags(),
        }
    }

    pub(crate) fn trimmed_at(&self, now: Stamp) {
        self.last_trim.store(now.0.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether there is room, or may be, for a peer of which nothing but the id is known.
    pub(crate) fn has_room_for(&self, peer: &PeerId) -> Result<(), HardLimitReached> {
        let Some(hard) = self.hard_limit else { return Ok(()) };
        let finds_room = match hard.room(&self.book) {
            Room::Free => true,
            Room::OfAnother => self
                .book
                .read(peer, self.now(), |record, value| record.is_kept() || value > 0)
                .unwrap_or(false),
            Room::None => false,
        };
        let limit = hard.limit;
        finds_room.then_some(()).ok_or(HardLimitReached { limit })
    }

    pub(crate) fn explain(&self, peer: &PeerId) -> Explanation {
        let now = self.now();
        let rules = self.rules(Mode::Normal, now);
        let standing = self.book.standing(peer, now);
        let (mut entries, mut seen) = (Vec::new(), Seen::default());
        for shard in 0..Book::SHARDS {
            rules.collect(shard, None, &mut entries, &mut seen);
        }
        let own = entries
            .iter()
            .find(|entry| standing.open > 0 && entry.hash == standing.hash);
        let ahead = own.map(|own| {
            entries
                .iter()
                .filter(|entry| entry.key < own.key)
                .map(|entry| entry.connections as usize)
                .sum()
        });
        Explanation {
            peer: *peer,
            class: standing.class,
            value: standing.value,
            protections: standing.protections,
            in_use: standing.guards,
            dialing: self.dials.contains(peer),
            grace_left: standing.grace_left,
            connections: standing.open,
            closing: standing.closing,
            ahead,
            excess: excess(
                self.low,
                self.target,
                self.book.open(),
                seen.connections,
                Reason::OnDemand,
            ),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("info", &self.info())
            .finish_non_exhaustive()
    }
}
