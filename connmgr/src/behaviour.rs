//! The manager in a Swarm: events and time go into the pure half, and what that wants closed goes out.

mod admission;
mod closing;

use crate::config::{Closer, Config, KeepAlive};
use crate::core::{Evictor, Mode, Newcomer, Stamp, Step, Trimmer};
use crate::event::{Event, Reason, Trimmed};
use crate::handle::Manager;
use crate::handler::{Handler, SetKeepAlive};
use crate::metrics::Metrics;
use crate::pressure::{Alarm, Watcher};
use crate::shared::{Request, Shared};
use futures::channel::oneshot;
use futures::future::FutureExt as _;
use futures_timer::Delay;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::PortUse;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::ConnectionEstablished;
use libp2p_swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A behaviour that counts connections and trims them, and the handle to it.
///
/// ```
/// # fn main() -> Result<(), libp2p_connmgr::ConfigError> {
/// let (behaviour, manager) = libp2p_connmgr::new(libp2p_connmgr::Config::new(160, 192)?);
/// # let _ = (behaviour, manager); Ok(()) }
/// ```
pub fn new(config: Config) -> (Behaviour, Manager) {
    let shared = Arc::new(Shared::new(&config));
    config.metrics.attach(&shared);
    let behaviour = Behaviour {
        trimmer: Trimmer::new(&config),
        evictor: Evictor::default(),
        keep_alive: config.keep_alive,
        keep_alive_interval: config.keep_alive_interval,
        closer: config.closer,
        metrics: config.metrics,
        dialing: HashMap::new(),
        keeping: HashSet::new(),
        out: VecDeque::new(),
        waiting: Vec::new(),
        forced: Vec::new(),
        unclosed: VecDeque::new(),
        timer: None,
        pressure: None,
        shared: shared.clone(),
    };
    (behaviour, Manager { shared })
}

/// The manager's part in a Swarm. Made by [`new`].
///
/// Costs nothing while nothing is to be done: a poll is a look at three empty queues, and no timer runs while there are fewer
/// connections than the high watermark. The handler of a kept connection has a timer while the other end has to be asked. A trim runs in slices of at most a few milliseconds, between which the rest of the Swarm has
/// its turn.
///
/// When it is dropped, trims under way resolve, and the manager forgets the connections.
pub struct Behaviour {
    shared: Arc<Shared>,
    trimmer: Trimmer,
    evictor: Evictor,
    keep_alive: KeepAlive,
    keep_alive_interval: Option<Duration>,
    closer: Option<Closer>,
    metrics: Metrics,
    /// Dials to known peers that are in flight.
    dialing: HashMap<ConnectionId, PeerId>,
    /// Connections that were given a handler that keeps them alive, and are not established yet.
    keeping: HashSet<ConnectionId>,
    out: VecDeque<ToSwarm<Event, SetKeepAlive>>,
    /// Who waits for the trim that runs, and for a forced one after it.
    waiting: Vec<oneshot::Sender<Trimmed>>,
    forced: Vec<oneshot::Sender<Trimmed>>,
    /// Peers that a closer was to close, and when to look whether it did.
    unclosed: VecDeque<(Stamp, PeerId)>,
    timer: Option<(Stamp, Delay)>,
    pressure: Option<Watcher>,
}

impl Behaviour {
    /// Trims as [`Manager::force_trim`] does whenever `watcher` raises an alarm. Default: nobody watches.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use libp2p_connmgr::pressure::{Config, SystemMemory, Watcher};
    ///
    /// let (behaviour, manager) = libp2p_connmgr::new(libp2p_connmgr::Config::new(160, 192)?);
    /// let behaviour = match SystemMemory::new() {
    ///     Ok(memory) => behaviour.with_memory_pressure(Watcher::new(Config::new(), memory)),
    ///     // Not on Linux.
    ///     Err(_) => behaviour,
    /// };
    /// # let _ = (behaviour, manager); Ok(()) }
    /// ```
    pub fn with_memory_pressure(mut self, watcher: Watcher) -> Self {
        self.pressure = Some(watcher.counting(self.shared.panics()));
        self
    }

    /// Asks for a trim when memory runs short.
    fn poll_pressure(&mut self, cx: &mut Context<'_>) {
        while let Some(watcher) = &mut self.pressure
            && let Poll::Ready(alarm) = watcher.poll(cx)
        {
            let Alarm { usage, again, .. } = alarm;
            tracing::warn!(
                used = usage.used,
                limit = usage.limit,
                again,
                "memory runs short: connections are closed"
            );
            // Nobody waits for the answer.
            let (answer, _) = oneshot::channel();
            self.shared.request(Request::Forced, answer);
        }
    }

    fn established(&mut self, event: ConnectionEstablished<'_>) {
        let ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            ..
        } = event;
        let now = self.shared.now();
        self.dial_ended(connection_id, now);
        let activity = self.shared.activity.join(&peer_id, endpoint);
        let candidate_from = self
            .shared
            .book
            .established(peer_id, connection_id, endpoint, activity, now);
        // It may have been protected, or no longer be, since its handler was made.
        let keeping = self.keeping.remove(&connection_id);
        if self.keep_alive == KeepAlive::Protected && keeping != self.shared.book.is_kept(&peer_id) {
            self.notify(peer_id, connection_id, !keeping);
        }
        let open = self.shared.book.open();
        if let Some(at) = candidate_from {
            self.trimmer.expect(at, open, now);
            self.keep_limit(peer_id, connection_id, endpoint, now);
        }
    }

    fn closed(&mut self, peer: PeerId, connection: ConnectionId) {
        let closed = self.shared.book.closed(&peer, connection, self.shared.now());
        if let Some(closed) = closed {
            self.metrics.closed(closed.open_for);
            self.trimmer.on_closed(closed.closing);
        }
    }

    fn dial_ended(&mut self, connection: ConnectionId, now: Stamp) {
        if let Some(peer) = self.dialing.remove(&connection) {
            self.shared.dials.end(&peer);
            self.trimmer.expect(now, self.shared.book.open(), now);
        }
    }

    fn notify(&mut self, peer_id: PeerId, connection: ConnectionId, keep_alive: bool) {
        self.out.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: SetKeepAlive(keep_alive),
        });
    }

    fn handler(&mut self, peer: &PeerId, connection: ConnectionId) -> Handler {
        let keep_alive = match self.keep_alive {
            KeepAlive::All => true,
            KeepAlive::None => false,
            KeepAlive::Protected => {
                let keep = self.shared.book.is_kept(peer);
                if keep {
                    self.keeping.insert(connection);
                }
                keep
            }
        };
        let accepts = self.keep_alive != KeepAlive::None;
        Handler::new(connection, keep_alive, self.keep_alive_interval, accepts)
    }

    /// Counts and reports.
    fn report(&mut self, event: Event) {
        self.metrics.event(&event);
        match &event {
            Event::Trimmed {
                peer,
                connections,
                reason,
            } => tracing::debug!(%peer, connections, %reason, "trimmed"),
            Event::TrimFinished { reason, trimmed } => {
                tracing::debug!(%reason, closed = trimmed.closed, stuck = trimmed.stuck, "trim finished");
            }
            Event::TrimSkipped { reason, skipped } => tracing::debug!(%reason, why = skipped.as_str(), "trim skipped"),
            Event::Denied { peer } => tracing::debug!(%peer, "denied at the hard limit"),
        }
        self.out.push_back(ToSwarm::GenerateEvent(event));
    }

    /// Takes up what handles have asked for since the last time.
    fn on_called(&mut self, now: Stamp) {
        if self.shared.is_closed() {
            self.trimmer.stop();
            // No trim begins any more.
            self.shared.answer(self.forced.drain(..), Trimmed::default());
        }
        for (request, answer) in self.shared.take_requests() {
            match (request, self.trimmer.running()) {
                (Request::Forced, Some(reason)) if reason != Reason::Pressure => self.forced.push(answer),
                (_, Some(_)) => self.waiting.push(answer),
                (Request::Normal, None) => {
                    self.trimmer.start(Reason::OnDemand);
                    self.waiting.push(answer);
                }
                (Request::Forced, None) => {
                    self.trimmer.start(Reason::Pressure);
                    self.waiting.push(answer);
                }
            }
        }
        for peer in self.shared.book.take_changed() {
            let Some((keep, connections)) = self.shared.book.acknowledge(&peer) else {
                continue;
            };
            if self.keep_alive == KeepAlive::Protected {
                for connection in connections {
                    self.notify(peer, connection, keep);
                }
            }
            if !keep {
                self.trimmer.expect(now, self.shared.book.open(), now);
            }
        }
    }

    /// A trim is over.
    fn answer(&mut self, event: Event, trimmed: Trimmed, now: Stamp) {
        self.shared.trimmed_at(now);
        self.report(event);
        self.shared.answer(self.waiting.drain(..), trimmed);
        self.shared.book.drop_ended();
        if !self.forced.is_empty() {
            self.waiting = std::mem::take(&mut self.forced);
            self.trimmer.start(Reason::Pressure);
        }
    }

    /// When there is something to do next without anybody calling.
    fn next_timeout(&self) -> Option<Stamp> {
        let unclosed = self.unclosed.front().map(|(due, _)| *due);
        [self.trimmer.next_timeout(), unclosed].into_iter().flatten().min()
    }

    /// Whether the timer has fired, or stands on the next timeout.
    fn poll_timer(&mut self, now: Stamp, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.next_timeout() else {
            self.timer = None;
            return Poll::Pending;
        };
        if due <= now {
            self.timer = None;
            return Poll::Ready(());
        }
        loop {
            let (_, timer) = match &mut self.timer {
                Some(timer) if timer.0 == due => timer,
                // A timer cannot be set for centuries on every platform; a day is far enough to look again.
                timer => timer.insert((due, Delay::new(due.since(now).min(Duration::from_secs(86_400))))),
            };
            match timer.poll_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                // It fired early, or a clock of tests stands still.
                Poll::Ready(()) => self.timer = None,
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(peer) = peer {
            self.dialing.insert(connection, peer);
            self.shared.dials.begin(peer);
        }
        Ok(Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let relayed = is_relayed(remote);
        self.admit(Newcomer {
            peer,
            outbound: false,
            relayed,
        })?;
        Ok(self.handler(&peer, connection))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let relayed = is_relayed(remote);
        self.admit(Newcomer {
            peer,
            outbound: true,
            relayed,
        })?;
        Ok(self.handler(&peer, connection))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.established(event),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id, connection_id, ..
            }) => self.closed(peer_id, connection_id),
            FromSwarm::AddressChange(change) => {
                self.shared
                    .book
                    .address_changed(&change.peer_id, change.connection_id, change.new);
            }
            FromSwarm::DialFailure(failure) => {
                self.keeping.remove(&failure.connection_id);
                self.dial_ended(failure.connection_id, self.shared.now());
            }
            FromSwarm::ListenFailure(failure) => {
                self.keeping.remove(&failure.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.shared.polled();
        self.poll_pressure(cx);
        // Once in a poll: handles that are called all the time wake the Swarm again, and it has its
        // turn between.
        let mut called = false;
        loop {
            if let Some(out) = self.out.pop_front() {
                return Poll::Ready(out);
            }
            if !called && self.shared.poll_called(cx) {
                called = true;
                self.on_called(self.shared.now());
                continue;
            }
            if self.trimmer.running().is_none() && self.next_timeout().is_none() {
                self.timer = None;
                return Poll::Pending;
            }
            let now = self.shared.now();
            self.on_unclosed(now);
            match self.trimmer.step(&mut self.shared.rules(Mode::Normal, now)) {
                Step::More => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::Close {
                    peer,
                    connections,
                    reason,
                } => {
                    let close = self.close(peer, &connections, CloseConnection::All, reason, now);
                    let connections = connections.len();
                    self.report(Event::Trimmed {
                        peer,
                        connections,
                        reason,
                    });
                    if let Some(close) = close {
                        return Poll::Ready(close);
                    }
                }
                Step::Finished { reason, trimmed } => {
                    self.answer(Event::TrimFinished { reason, trimmed }, trimmed, now);
                }
                Step::Skipped { reason, skipped } => {
                    self.answer(Event::TrimSkipped { reason, skipped }, Trimmed::default(), now);
                }
                Step::Idle if !self.out.is_empty() => {}
                Step::Idle => {
                    if self.poll_timer(now, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.shared.end_requests();
        self.shared
            .answer(self.waiting.drain(..).chain(self.forced.drain(..)), Trimmed::default());
        self.shared.book.disconnect_all(self.shared.now());
        for (_, peer) in self.dialing.drain() {
            self.shared.dials.end(&peer);
        }
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behaviour")
            .field("info", &self.shared.info())
            .field("running", &self.trimmer.running())
            .finish_non_exhaustive()
    }
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

#[cfg(test)]
impl Behaviour {
    pub(crate) fn hook_panics(&self) -> Vec<(&'static str, u64)> {
        use crate::user_code::Hook;
        let count = |hook: &Hook| (hook.name(), self.shared.panics().get(*hook));
        Hook::ALL.iter().map(count).collect()
    }

    pub(crate) fn registry(&self) -> crate::count::Registry {
        self.shared.activity.clone()
    }

    pub(crate) fn records(&self) -> usize {
        self.shared.book.records()
    }

    /// In which part of the book a peer lies: a trim walks them in this order.
    pub(crate) fn shard_of(&self, peer: &PeerId) -> usize {
        crate::core::Book::shard_of(self.shared.book.hash(peer))
    }

    pub(crate) fn poll_under_all_locks(&mut self) {
        let shared = self.shared.clone();
        let _guards: Vec<_> = (0..crate::core::Book::SHARDS).map(|at| shared.book.lock(at)).collect();
        assert!(
            self.poll(&mut Context::from_waker(std::task::Waker::noop()))
                .is_pending()
        );
    }

    pub(crate) fn next_timer(&self) -> Option<Stamp> {
        self.next_timeout()
    }
}
