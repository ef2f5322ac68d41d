//! Which of the dials at one peer goes when.
//!
//! libp2p has a transport dial all addresses of a peer at once, polls eight of these dials at a time, and takes the
//! first that succeeds. It would never poll an address of the knock behind eight stock addresses. So the dials of one
//! `Swarm::dial`, here a *round*, help each other:
//!
//! - A stock dial waits until the knocks at its peer have ended, up to the head start.
//! - While it waits, and while it dials, it drives the first eight knocks of its round that libp2p does not poll.
//! - When such a knock has succeeded, the stock dials of the round fail, until libp2p polls the knock's own dial. That
//!   dial alone can report the address under which the peer was reached.
//! - A stock dial that is done holds its connection back while a knock has its head start.
//! - A knock that has had its head start fails, if libp2p would not poll any stock dial otherwise.
//!
//! The head start is the round's. It begins when one of the round's dials is first polled.
//!
//! A DNS transport around all this dials an address when it is first polled, so each of its dials is a round of its own.
//! There a stock dial waits for the knocks that it has heard of.

use crate::silence::limits::later;
use crate::timer::Deadline;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, FutureExt as _, Shared, pending, poll_fn, select, select_all};
use libp2p_identity::PeerId;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;
use web_time::Instant;

/// How long stock dials wait to be dropped after a knock has succeeded.
const GRACE: Duration = Duration::from_secs(1);
/// How long a knock that gave up its place has to have a stock dial polled before the next knock gives up its own. No
/// knock gives up its place sooner after it got one.
const TURN: Duration = Duration::from_millis(50);
/// Limit on the knocks without a place that the stock dials of a round drive at once. So many dials libp2p polls at once.
const MOST_DRIVEN: usize = 8;

type Begun = Arc<OnceLock<Instant>>;
type Drive = Shared<BoxFuture<'static, ()>>;
/// What a knock came to, or its panic.
type Ended<O, E> = std::thread::Result<Result<O, E>>;

/// Why a dial came to nothing.
#[derive(Debug)]
pub(crate) enum Lost<E> {
    /// Of itself.
    Failed(E),
    /// A knock of the round has succeeded, and needs a place.
    Displaced,
    /// A stock dial of the round needs a place.
    GaveWay,
}

/// What others may know of one knock.
#[derive(Debug)]
struct Knocking {
    round: u64,
    /// When the first dial of its round was polled.
    begun: Begun,
    state: Mutex<State>,
    /// Resolves when it has ended.
    ended: Shared<oneshot::Receiver<()>>,
}

#[derive(Debug)]
struct State {
    /// Whether libp2p polls its own dial.
    has_place: bool,
    outcome: Option<Outcome>,
    end: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Won(Instant),
    Failed,
}

impl Knocking {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The first outcome counts.
    fn end(&self, outcome: Outcome) {
        let mut state = self.state();
        state.outcome.get_or_insert(outcome);
        let end = state.end.take();
        drop(state);
        // Not under the lock: it wakes others.
        drop(end);
    }
}

/// The dials of one `Swarm::dial` to one peer.
#[derive(Default)]
pub(crate) struct Round {
    name: u64,
    /// When one of its dials was first polled. It is complete then.
    begun: Begun,
    knocks: Mutex<Vec<(Arc<Knocking>, Drive)>>,
    stocks: AtomicUsize,
    stock_has_place: AtomicBool,
    gave_way: Mutex<Option<Instant>>,
}

impl Round {
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.get().is_some()
    }

    /// One of its dials is polled. Returns when the head start is over.
    fn begin(&self, head_start: Duration) -> Instant {
        later(*self.begun.get_or_init(Instant::now), head_start)
    }

    /// The ends of knocks that have not ended: of the first that have no place, and `of_placed` ones. Each drives its
    /// knock. `None` if a knock without a place has succeeded.
    fn ends(&self, of_placed: bool) -> Option<Vec<BoxFuture<'static, ()>>> {
        let mut ends = Vec::new();
        let mut driven = 0;
        for (knocking, drive) in lock(&self.knocks).iter() {
            let state = knocking.state();
            match (state.outcome, state.has_place) {
                (Some(Outcome::Won(_)), false) => return None,
                (None, true) if of_placed => {}
                (None, false) if driven < MOST_DRIVEN => driven += 1,
                _ => continue,
            }
            // One whose own dial is dropped ends, and is not to go on.
            ends.push(select(drive.clone(), knocking.ended.clone()).map(drop).boxed());
        }
        Some(ends)
    }

    /// Whether a knock gives up its place now, or when to ask again, or that it keeps it for good.
    fn gives_way(&self, now: Instant) -> GivesWay {
        if self.stocks.load(Ordering::Relaxed) == 0 || self.stock_has_place.load(Ordering::Relaxed) {
            return GivesWay::Never;
        }
        let waits = |knocking: &Knocking| {
            let state = knocking.state();
            !state.has_place && state.outcome.is_none()
        };
        let waiting = lock(&self.knocks)
            .iter()
            .filter(|(knocking, _)| waits(knocking))
            .count();
        // All of them may be in front of the stock dials.
        let pace = 1 + waiting / MOST_DRIVEN;
        let turn = TURN / u32::try_from(pace).unwrap_or(u32::MAX);
        let mut gave_way = lock(&self.gave_way);
        match gave_way.map(|gave_way| gave_way + turn) {
            Some(turn) if now < turn => GivesWay::Ask(turn),
            _ => {
                *gave_way = Some(now);
                GivesWay::Now
            }
        }
    }
}

enum GivesWay {
    Now,
    Ask(Instant),
    Never,
}

/// All knocks of a transport by peer, also those that have succeeded a moment ago.
#[derive(Clone, Default)]
pub(crate) struct Peers(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    knocks: HashMap<PeerId, Vec<Arc<Knocking>>>,
    won: VecDeque<(Instant, PeerId)>,
    rounds: u64,
}

impl Known {
    fn forget(&mut self, now: Instant) {
        while let Some((until, peer)) = self.won.front().copied()
            && until <= now
        {
            self.won.pop_front();
            self.retain(peer, |knocking| match knocking.state().outcome {
                Some(Outcome::Won(at)) => at + GRACE > now,
                _ => true,
            });
        }
    }

    fn retain(&mut self, peer: PeerId, stays: impl Fn(&Arc<Knocking>) -> bool) {
        if let Some(knocks) = self.knocks.get_mut(&peer) {
            knocks.retain(stays);
            if knocks.is_empty() {
                self.knocks.remove(&peer);
            }
        }
    }
}

impl Peers {
    pub(crate) fn round(&self) -> Arc<Round> {
        let mut known = lock(&self.0);
        known.rounds += 1;
        Arc::new(Round {
            name: known.rounds,
            ..Round::default()
        })
    }

    /// A knock at `peer`. It counts until it is dropped, and for a moment longer if it has succeeded.
    pub(crate) fn knock<O, E>(
        &self,
        peer: PeerId,
        round: &Arc<Round>,
        head_start: Duration,
        dial: impl Future<Output = Result<O, E>> + Send + 'static,
    ) -> Knock<O, E>
    where
        O: Send + 'static,
        E: Send + 'static,
    {
        let (end, ended) = oneshot::channel();
        let knocking = Arc::new(Knocking {
            round: round.name,
            begun: round.begun.clone(),
            state: Mutex::new(State {
                has_place: false,
                outcome: None,
                end: Some(end),
            }),
            ended: ended.shared(),
        });
        let result = Arc::new(Mutex::new(None));
        let (driven, left) = (knocking.clone(), result.clone());
        let drive = async move {
            let done = AssertUnwindSafe(dial).catch_unwind().await;
            let won = matches!(done, Ok(Ok(_)));
            *lock(&left) = Some(done);
            driven.end(if won {
                Outcome::Won(Instant::now())
            } else {
                Outcome::Failed
            });
        };
        let drive = drive.boxed().shared();
        lock(&round.knocks).push((knocking.clone(), drive.clone()));
        let mut known = lock(&self.0);
        known.forget(Instant::now());
        known.knocks.entry(peer).or_default().push(knocking.clone());
        Knock {
            peer,
            round: round.clone(),
            peers: self.clone(),
            head_start,
            knocking,
            drive,
            result,
        }
    }

    /// A stock dial at `peer`.
    pub(crate) fn stock(&self, peer: PeerId, round: &Arc<Round>, head_start: Duration) -> Stock {
        round.stocks.fetch_add(1, Ordering::Relaxed);
        Stock {
            peer,
            round: round.clone(),
            peers: self.clone(),
            head_start,
        }
    }

    fn at(&self, peer: &PeerId) -> Vec<Arc<Knocking>> {
        lock(&self.0).knocks.get(peer).cloned().unwrap_or_default()
    }
}

/// The own dial of a knock.
pub(crate) struct Knock<O, E> {
    peer: PeerId,
    round: Arc<Round>,
    peers: Peers,
    head_start: Duration,
    knocking: Arc<Knocking>,
    drive: Drive,
    result: Arc<Mutex<Option<Ended<O, E>>>>,
}

impl<O, E> Knock<O, E> {
    pub(crate) async fn run(self) -> Result<O, Lost<E>> {
        let over = self.round.begin(self.head_start);
        self.knocking.state().has_place = true;
        let mut drive = self.drive.clone();
        if self.round.stocks.load(Ordering::Relaxed) == 0 {
            drive.await;
        } else if let Either::Right(_) = select(&mut drive, pin!(once())).await {
            // libp2p has polled all the dials that have a place.
            let mut ask = over.max(Instant::now() + TURN);
            loop {
                let ended = matches!(select(&mut drive, Deadline::at(ask)).await, Either::Left(_));
                if ended {
                    break;
                }
                match self.round.gives_way(Instant::now()) {
                    GivesWay::Now => return Err(Lost::GaveWay),
                    GivesWay::Ask(again) => ask = again,
                    GivesWay::Never => {
                        drive.await;
                        break;
                    }
                }
            }
        }
        let result = lock(&self.result).take();
        match result {
            Some(Ok(result)) => result.map_err(Lost::Failed),
            // As if it had been polled here.
            Some(Err(panic)) => resume_unwind(panic),
            None => Err(Lost::Displaced),
        }
    }
}

impl<O, E> Drop for Knock<O, E> {
    fn drop(&mut self) {
        self.knocking.end(Outcome::Failed);
        let is_this = |other: &Arc<Knocking>| Arc::ptr_eq(other, &self.knocking);
        // The others of its round do not go on with it.
        let gone: Vec<_> = lock(&self.round.knocks)
            .extract_if(.., |(other, _)| is_this(other))
            .collect();
        let mut known = lock(&self.peers.0);
        let now = Instant::now();
        known.forget(now);
        match self.knocking.state().outcome {
            Some(Outcome::Won(at)) => known.won.push_back((at + GRACE, self.peer)),
            _ => known.retain(self.peer, |other| !is_this(other)),
        }
        drop(known);
        // Not under the locks: it is the user's code in part.
        drop(gone);
    }
}

/// A stock dial. It counts until it is dropped, also if it never was polled.
pub(crate) struct Stock {
    peer: PeerId,
    round: Arc<Round>,
    peers: Peers,
    head_start: Duration,
}

impl Stock {
    pub(crate) async fn run<O, E>(self, dial: impl Future<Output = Result<O, E>>) -> Result<O, Lost<E>> {
        let latest = self.round.begin(self.head_start);
        self.round.stock_has_place.store(true, Ordering::Relaxed);
        // Around this may be a transport that dials when it is polled. It polls all of them once before one again.
        once().await;
        self.settled(latest).await?;
        let connected = match select(pin!(dial), pin!(self.displaced())).await {
            Either::Left((connected, _)) => connected.map_err(Lost::Failed)?,
            Either::Right(((), _)) => return Err(Lost::Displaced),
        };
        self.settled(latest).await?;
        Ok(connected)
    }

    /// Waits until no knock at the peer has its head start.
    async fn settled<E>(&self, latest: Instant) -> Result<(), Lost<E>> {
        loop {
            let now = Instant::now();
            let (mut head_start, mut grace) = (now, now);
            let mut ends = self.round.ends(true).ok_or(Lost::Displaced)?;
            if !ends.is_empty() {
                head_start = latest;
            }
            for knocking in self.peers.at(&self.peer) {
                let own_round = knocking.round == self.round.name;
                match (knocking.state().outcome, knocking.begun.get()) {
                    (Some(Outcome::Won(at)), _) => grace = grace.max(at + GRACE),
                    (None, Some(begun)) if !own_round => {
                        let until = later(*begun, self.head_start).min(latest);
                        if until > now {
                            head_start = head_start.max(until);
                            ends.push(knocking.ended.clone().map(drop).boxed());
                        }
                    }
                    _ => {}
                }
            }
            let until = head_start.max(grace);
            if until <= now {
                return Ok(());
            }
            if ends.is_empty() {
                Deadline::at(until).await;
            } else {
                select(select_all(ends), Deadline::at(until)).await;
            }
        }
    }

    /// Drives knocks of the round that have no place, and ends when one of them has succeeded.
    async fn displaced(&self) {
        while let Some(driven) = self.round.ends(false) {
            if driven.is_empty() {
                return pending().await;
            }
            select_all(driven).await;
        }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // A knock that would give way for it asks first.
        self.round.stocks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets what else is ready be polled.
async fn once() {
    let mut polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Nothing under a lock of this file can panic half way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
