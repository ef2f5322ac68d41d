//! Sockets that have not authenticated, held in a bounded pool outside the Swarm.
//!
//! A socket comes in from the inner transport, waits for its knock, and leaves as a [`Knocked`] or not at all. Who fails,
//! at whatever step, stays until its deadline and is read from. No byte is written here.

use crate::judge::{Invited, Judged, Turned, Why};
use crate::knock::Refusal;
use crate::knock::reader::Reader;
use crate::knock::v3::Opened;
use crate::lent::{Lender, Lent, lend};
use crate::metrics::KnockOutcome;
use crate::silence::answering::Answering;
use crate::silence::pool::{Action, EVICTED_FOR_DESCRIPTORS, Event, Pool, Slot};
use crate::silence::prefix::Prefix;
use crate::silence::summary::Cause;
use crate::socket::{Signal, Socket, Step};
use crate::timer::Deadline;
use crate::upgrade::Shared;
use crate::user_code::Hook;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use futures::channel::mpsc;
use futures::future::{BoxFuture, FutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use futures::stream::{FuturesUnordered, StreamExt as _};
use libp2p_core::transport::ListenerId;
use libp2p_core::{ConnectedPoint, Multiaddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use web_time::Instant;

/// Heads opened in one turn, at most: each may cost two Diffie-Hellman, and a flood of them must not keep whoever
/// polls from its other work.
const OPENINGS_PER_TURN: usize = 8;

/// Sockets that have something to say and are heard in one turn, at most.
const STEPS_PER_TURN: usize = 64;

/// A socket whose caller may come in.
pub(crate) struct Knocked<S> {
    pub(crate) io: Lent<S>,
    pub(crate) invited: Invited,
    pub(crate) prefix: Prefix,
    pub(crate) listener: ListenerId,
    pub(crate) local_addr: Multiaddr,
    pub(crate) send_back_addr: Multiaddr,
    pub(crate) ticket: Ticket<S>,
}

/// The place of a caller that is being answered, until it is known what becomes of it. Dropped, it is free.
pub(crate) struct Ticket<S> {
    slot: Slot,
    outcome: Option<Outcome<S>>,
    lobby: mpsc::UnboundedSender<(Slot, Outcome<S>)>,
}

/// What became of a caller that was answered.
enum Outcome<S> {
    /// It has authenticated.
    In,
    /// It has failed. Read from it until its time is over.
    Out(S),
    /// The Swarm did not want it, or it was taken back.
    Dropped,
}

impl<S> Ticket<S> {
    pub(crate) fn authenticated(mut self) {
        self.outcome = Some(Outcome::In);
    }

    pub(crate) fn failed(mut self, io: S) {
        self.outcome = Some(Outcome::Out(io));
    }
}

impl<S> Drop for Ticket<S> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Outcome::Dropped);
        // Without a lobby there is no listener any more.
        let _ = self.lobby.unbounded_send((self.slot, outcome));
    }
}

/// What the pool knows of a socket. Dropping it closes the socket.
struct Place {
    listener: ListenerId,
    local_addr: Multiaddr,
    send_back_addr: Multiaddr,
    prefix: Prefix,
    /// Whether it has been counted already what became of it.
    counted: bool,
    /// Its slot while the Swarm answers it. Its signal reaches no socket then.
    answering: Option<Slot>,
    signal: Arc<Signal>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.signal.close();
    }
}

/// The pool and its sockets. Poll it with [`Lobby::poll`].
pub(crate) struct Lobby<S> {
    shared: Arc<Shared>,
    pool: Pool<Place>,
    sockets: FuturesUnordered<Socket<S>>,
    answering: Answering<Lender<S>>,
    outcomes: mpsc::UnboundedReceiver<(Slot, Outcome<S>)>,
    ticket: mpsc::UnboundedSender<(Slot, Outcome<S>)>,
    lots: SystemRandom,
    /// For the first deadline, or for an earlier one whose socket has left in time.
    timer: Option<(Instant, Deadline)>,
    /// Callers that are the Swarm's and of which nothing has been heard yet, those among them that had to go.
    outstanding: usize,
    /// Heads opened in this turn.
    openings: usize,
    /// Whether the last turn ended with its share used up.
    busy: bool,
    /// How many sockets the metrics show of this one.
    shown: usize,
}

impl<S> Drop for Lobby<S> {
    fn drop(&mut self) {
        self.shared.config.metrics.waiting(self.shown, 0);
    }
}

/// How many times as many callers as may be answered at once wait for a Swarm, at most: one that is held up takes none, and those
/// that had to go stay with it.
const OUTSTANDING: usize = 2;

impl<S> Lobby<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (ticket, outcomes) = mpsc::unbounded();
        Self {
            pool: Pool::new(shared.config.max_waiting, shared.config.close_time),
            sockets: FuturesUnordered::new(),
            answering: Answering::new(shared.config.max_waiting.get()),
            outcomes,
            ticket,
            lots: SystemRandom::new(),
            timer: None,
            outstanding: 0,
            shown: 0,
            openings: 0,
            busy: false,
            shared,
        }
    }

    /// Takes a socket in, once `socket`, the inner transport's upgrade, yields it.
    pub(crate) fn admit(
        &mut self,
        socket: BoxFuture<'static, Option<S>>,
        listener: ListenerId,
        local_addr: Multiaddr,
        send_back_addr: Multiaddr,
    ) {
        let shared = self.shared.clone();
        let prefix = Prefix::of(&send_back_addr);
        let signal = Arc::new(Signal::default());
        let place = Place {
            listener,
            local_addr,
            send_back_addr,
            prefix,
            counted: false,
            answering: None,
            signal: signal.clone(),
        };
        let known = shared.config.guard.is_known(prefix);
        let (slot, evicted) = self.pool.on_accept(Instant::now(), prefix, known, place, self.lot());
        shared.config.metrics.accepted();
        if let Some(place) = evicted {
            self.evict(&place);
        }
        self.sockets.push(Socket::connecting(slot, signal, shared, socket));
        self.count();
    }

    /// Drops the sockets of a listener that is no more. Those that have knocked are the Swarm's
    /// already, and keep their places.
    pub(crate) fn close(&mut self, listener: ListenerId) {
        let gone = |place: &Place| place.listener == listener && place.answering.is_none();
        drop(self.pool.remove_where(gone));
        self.count();
    }

    /// Closes some, as the system has no descriptors left.
    pub(crate) fn make_room(&mut self) {
        let lot = self.lot();
        for place in self.pool.evict(EVICTED_FOR_DESCRIPTORS, lot) {
            self.evict(&place);
        }
        self.count();
    }

    /// Closes one that had to leave the pool, also if the Swarm works with it.
    fn evict(&mut self, place: &Place) {
        self.left(place, KnockOutcome::Evicted, Cause::Evicted);
        self.take_back_answering(place);
    }

    /// Takes back the socket of one that has left the pool, if the Swarm works with it.
    fn take_back_answering(&mut self, place: &Place) {
        if let Some(slot) = place.answering
            && let Some(lender) = self.answering.end(slot)
        {
            self.take_back(slot, lender);
        }
    }

    /// Takes back the socket of a caller that is being answered. It may be through already, with
    /// word of that on the way.
    fn take_back(&mut self, slot: Slot, lender: Lender<S>) {
        if let Some(io) = lender.take_back() {
            self.drain(slot, io);
        }
    }

    /// Whether more may be ready than the last [`Lobby::poll`] got to. It has asked to be woken then.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// The next caller that may come in.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Knocked<S>> {
        self.openings = 0;
        self.go_on(cx)
    }

    /// The same once more in the same turn, when sockets have been let in meanwhile.
    pub(crate) fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Knocked<S>> {
        self.busy = false;
        self.poll_outcomes(cx);
        self.poll_deadlines(cx);
        for _ in 0..STEPS_PER_TURN {
            let step = match self.sockets.poll_next_unpin(cx) {
                Poll::Ready(Some(step)) => step,
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            };
            let (io, slot, judged) = match step {
                Step::Ended(slot) => {
                    if let Action::Close(place) = self.pool.on_event(slot, Event::Ended) {
                        self.left(&place, KnockOutcome::Incomplete, Cause::Incomplete);
                    }
                    self.count();
                    continue;
                }
                Step::Head(slot, io, reader) => {
                    self.openings += 1;
                    let judged = self.judge_head(slot, &reader);
                    (io, slot, judged.map(|judged| (judged, Some(reader))))
                }
                Step::Flight(slot, io, opened, sealed) => {
                    let judged = self.judge_flight(slot, &opened, &sealed);
                    (io, slot, judged.map(|invited| (Judged::Invited(invited), None)))
                }
            };
            match judged {
                Ok((Judged::Awaited(opened), _)) => self.await_flight(slot, io, opened),
                Ok((Judged::Undecided, reader)) => self.gather_on(slot, io, reader),
                Ok((Judged::Invited(invited), _)) => {
                    if let Some(knocked) = self.answer(slot, io, invited) {
                        return Poll::Ready(knocked);
                    }
                }
                Err(turned) => self.turn_away(slot, io, turned),
            }
            if self.openings >= OPENINGS_PER_TURN {
                break;
            }
        }
        self.busy = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn judge_head(&mut self, slot: Slot, reader: &Reader) -> Result<Judged, Turned> {
        let (Action::Open, Some(gathered)) = (self.pool.on_event(slot, Event::Head), reader.gathered()) else {
            return Err(Turned::GONE);
        };
        let place = self.pool.get_mut(slot).ok_or(Turned::GONE)?;
        self.shared.judge_head(gathered, place.prefix, &place.point())
    }

    fn gather_on(&mut self, slot: Slot, io: S, reader: Option<Reader>) {
        let (Action::ReadHead, Some(mut reader)) = (self.pool.on_event(slot, Event::Undecided), reader) else {
            return;
        };
        if let Some(place) = self.pool.get_mut(slot) {
            reader.go_on();
            let signal = place.signal.clone();
            self.sockets
                .push(Socket::gathering(slot, signal, self.shared.clone(), io, reader));
        }
    }

    fn judge_flight(&mut self, slot: Slot, opened: &Opened, sealed: &[u8]) -> Result<Invited, Turned> {
        let place = self.pool.get_mut(slot).ok_or(Turned::GONE)?;
        self.shared.judge_flight(opened, sealed, place.prefix)
    }

    fn await_flight(&mut self, slot: Slot, io: S, opened: Box<Opened>) {
        let Action::ReadFlight { displaced } = self.pool.on_event(slot, Event::Admitted) else {
            return;
        };
        if let Some(displaced) = displaced
            && let Some(place) = self.pool.get_mut(displaced)
        {
            place.signal.drain();
            let prefix = place.prefix;
            if !std::mem::replace(&mut place.counted, true) {
                self.shared.left(prefix, KnockOutcome::Displaced, Cause::Displaced);
            }
        }
        if let Some(place) = self.pool.get_mut(slot) {
            let signal = place.signal.clone();
            self.sockets
                .push(Socket::awaiting_flight(slot, signal, self.shared.clone(), io, opened));
        }
    }

    fn answer(&mut self, slot: Slot, io: S, invited: Invited) -> Option<Knocked<S>> {
        if self.outstanding >= OUTSTANDING * self.answering.most() {
            self.turn_away(slot, io, Refusal::Budget.into());
            return None;
        }
        let Action::Answer = self.pool.on_event(slot, Event::Knocked) else {
            return None;
        };
        let place = self.pool.get_mut(slot)?;
        self.shared.count(Ok(&invited), place.prefix);
        place.counted = true;
        place.answering = Some(slot);
        self.outstanding += 1;
        let (lender, io) = lend(io);
        let knocked = Knocked {
            io,
            invited,
            prefix: place.prefix,
            listener: place.listener,
            local_addr: place.local_addr.clone(),
            send_back_addr: place.send_back_addr.clone(),
            ticket: Ticket {
                slot,
                outcome: None,
                lobby: self.ticket.clone(),
            },
        };
        let known = self.shared.config.guard.is_known(knocked.prefix);
        if let Some((other, lender)) = self.answering.start(slot, knocked.prefix, known, lender) {
            self.take_back(other, lender);
        }
        Some(knocked)
    }

    /// Reads from then on what it goes on sending, and does not listen.
    fn turn_away(&mut self, slot: Slot, io: S, turned: Turned) {
        if let Why::Gone = turned.why {
            return;
        }
        let prefix = self.pool.get_mut(slot).map_or(Prefix::Unknown, |place| {
            place.counted = true;
            place.prefix
        });
        self.shared.count(Err(&turned), prefix);
        // The denial is the user's.
        let _ = self.shared.config.user_code.run(Hook::Admission, || drop(turned));
        self.drain(slot, io);
    }

    /// Reads from it until its time is over, which it is if its place is gone.
    fn drain(&mut self, slot: Slot, io: S) {
        self.pool.on_event(slot, Event::Refused);
        let shared = self.shared.clone();
        self.sockets.push(match self.pool.get_mut(slot) {
            Some(place) => {
                place.answering = None;
                Socket::draining(slot, place.signal.clone(), shared, io)
            }
            None => Socket::closing(slot, Arc::default(), shared, io),
        });
    }

    /// Hears what became of those that were answered.
    fn poll_outcomes(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some((slot, outcome))) = self.outcomes.poll_next_unpin(cx) {
            self.outstanding -= 1;
            let ended = self.answering.end(slot).is_some();
            // Displaced in the turn in which its upgrade was dropped: there was no socket to take back.
            let gone = self.pool.get_mut(slot).is_some_and(|place| place.answering.is_some());
            match outcome {
                Outcome::In => {
                    if let Some(place) = self.pool.remove(slot) {
                        self.pool.on_authenticated(place.prefix);
                    }
                }
                Outcome::Out(io) => self.drain(slot, io),
                Outcome::Dropped if ended || gone => drop(self.pool.remove(slot)),
                // It was taken back before, and has its place still or has not.
                Outcome::Dropped => {}
            }
            self.count();
        }
    }

    /// Closes whose time is over, and says once a minute how many there were.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) {
        loop {
            let summary = self.shared.config.guard.summarise();
            let Some(next) = self.pool.next_timeout().into_iter().chain(summary).min() else {
                return;
            };
            let timer = match &mut self.timer {
                Some((at, timer)) if *at <= next => timer,
                timer => &mut timer.insert((next, Deadline::at(next))).1,
            };
            if timer.poll_unpin(cx).is_pending() {
                return;
            }
            self.timer = None;
            // A handshake that has begun has a time limit of its own.
            let answering = &self.answering;
            let begun = |place: &Place| {
                let lender = place.answering.and_then(|slot| answering.get(slot));
                lender.is_some_and(Lender::is_used)
            };
            let expired: Vec<_> = std::iter::from_fn(|| self.pool.pop_expired(Instant::now(), begun)).collect();
            for place in expired {
                self.left(&place, KnockOutcome::Timeout, Cause::Timeout);
                self.take_back_answering(&place);
            }
            self.count();
        }
    }

    /// Counts, unless that was done before, why a socket left.
    fn left(&self, place: &Place, outcome: KnockOutcome, cause: Cause) {
        if !place.counted {
            self.shared.left(place.prefix, outcome, cause);
        }
    }

    fn count(&mut self) {
        let shown = std::mem::replace(&mut self.shown, self.pool.len());
        self.shared.config.metrics.waiting(shown, self.shown);
    }

    /// Whom an eviction hits. Should there be no randomness, always the same.
    fn lot(&self) -> u64 {
        let mut bytes = [0; 8];
        let _ = self.lots.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl Place {
    fn point(&self) -> ConnectedPoint {
        ConnectedPoint::Listener {
            local_addr: self.local_addr.clone(),
            send_back_addr: self.send_back_addr.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
