//! The peers that there are streams to, shared by streams, connections and the driver.

mod lease;

use crate::after::{After, Later};
use crate::counters::{HostCounters, PeerCounters};
use crate::engine::bucket::{TokenBucket, WireBucket};
use crate::engine::id::Key;
use crate::engine::memory::Budget;
use crate::engine::peer::{Outbound, Peer, Ticket};
use crate::engine::slots::Slots;
use crate::error::{OpenError, SignError, UpdateError};
use crate::limits::{Limits, MAX_PEERS_PER_HOST, MAX_STREAM_NAME_LENGTH, Priority};
use crate::message::{Inbound, Sent};
use crate::user_code::Hook;
use bytes::Bytes;
pub(crate) use lease::Lease;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What panicked in between left counts that are off at worst.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A generator seeded by the system.
pub(crate) fn chance() -> StdRng {
    StdRng::try_from_rng(&mut SysRng).expect("the system has random bytes")
}

/// What the drivers set differently.
pub(crate) struct Setup {
    pub(crate) local: PeerId,
    /// Signs for applications.
    pub(crate) identity: Option<Arc<dyn libp2p_knock::Identity>>,
    /// Whether peers must have a key that can be knocked at.
    pub(crate) ed25519_only: bool,
    pub(crate) memory: usize,
    pub(crate) dial_interval: Duration,
}

/// All of them.
pub(crate) struct Registry {
    setup: Setup,
    key: Key,
    budget: Budget,
    pub(crate) counters: Arc<HostCounters>,
    peers: Mutex<Peers>,
    generations: AtomicU64,
    changes: Mutex<Changes>,
    listening: Mutex<Vec<Multiaddr>>,
    bound: Mutex<Vec<Multiaddr>>,
}

#[derive(Default)]
struct Peers {
    closed: bool,
    peers: HashMap<PeerId, Arc<Shared>>,
}

#[derive(Default)]
struct Changes {
    peers: HashSet<PeerId>,
    waker: Option<Waker>,
}

/// What the driver is to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Connection,
    Nothing,
    /// There is no stream to it.
    Forget,
}

impl Registry {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            key: Key::of_peer(&setup.local),
            budget: Budget::new(setup.memory),
            setup,
            counters: Arc::default(),
            peers: Mutex::default(),
            generations: AtomicU64::new(1),
            changes: Mutex::default(),
            listening: Mutex::default(),
            bound: Mutex::default(),
        }
    }

    pub(crate) fn local(&self) -> PeerId {
        self.setup.local
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let identity = self.setup.identity.as_ref().ok_or(SignError::NoIdentity)?;
        Ok(identity.sign(message)?)
    }

    pub(crate) fn listening(&self) -> MutexGuard<'_, Vec<Multiaddr>> {
        lock(&self.listening)
    }

    /// What was to be listened on, with the ports that the system chose: `0.0.0.0` is one here.
    pub(crate) fn bound(&self) -> MutexGuard<'_, Vec<Multiaddr>> {
        lock(&self.bound)
    }

    pub(crate) fn get(&self, peer: &PeerId) -> Option<Arc<Shared>> {
        lock(&self.peers).peers.get(peer).cloned()
    }

    /// The last of what it returns has to be dropped under no lock: it wakes tasks.
    pub(crate) fn open(
        &self,
        peer: PeerId,
        name: &str,
        priority: Priority,
        limits: Limits,
    ) -> Result<(Arc<Shared>, Ticket, Later), OpenError> {
        limits.check()?;
        match name.len() {
            0 => return Err(OpenError::EmptyName),
            1..=MAX_STREAM_NAME_LENGTH => {}
            length => return Err(OpenError::NameLength(length)),
        }
        if peer == self.setup.local {
            return Err(OpenError::OurselfAsPeer);
        }
        if self.setup.ed25519_only && Key::ed25519(&peer).is_none() {
            return Err(OpenError::UnsupportedPeer(peer));
        }
        let now = Instant::now();
        let mut peers = lock(&self.peers);
        if peers.closed {
            return Err(OpenError::HostClosed);
        }
        let count = peers.peers.len();
        let (shared, new) = match peers.peers.entry(peer) {
            Entry::Occupied(entry) => (entry.get().clone(), false),
            Entry::Vacant(_) if count >= MAX_PEERS_PER_HOST => return Err(OpenError::TooManyPeers),
            Entry::Vacant(entry) => (entry.insert(Arc::new(self.shared(peer, now))).clone(), true),
        };
        let (ticket, mut after) = {
            let mut state = shared.lock();
            let ticket = state.peer.open(&peer, name, priority, limits, now)?;
            state.wire.add_stream(&limits, now);
            shared.show_limit(&state);
            state.nudge();
            (ticket, state.give_back())
        };
        drop(peers);
        if new {
            after.wake.extend(self.note_change(peer));
        }
        let counters = self.counters.clone();
        Ok((shared, ticket, Later { after, counters }))
    }

    fn shared(&self, peer: PeerId, now: Instant) -> Shared {
        let (remote, host) = (Key::of_peer(&peer), self.counters.clone());
        let counters = host.join(peer);
        // As ragep2p: four at once, and two in an interval.
        let per_second = (2.0 / self.setup.dial_interval.as_secs_f64()).max(0.5);
        Shared {
            peer,
            host,
            counters: counters.clone(),
            state: Mutex::new(State {
                peer: Peer::new(self.key, remote, self.budget.clone(), counters, chance()),
                slots: Slots::new(self.key < remote),
                wire: WireBucket::new(now),
                inbound: TokenBucket::full((per_second * 1000.0).floor() as u64, 4, now),
                links: HashMap::new(),
                gone: false,
            }),
        }
    }

    /// Whether it was open until now.
    pub(crate) fn close(&self, shared: &Shared, ticket: Ticket) -> bool {
        let mut peers = lock(&self.peers);
        let mut state = shared.lock();
        let Some(closed) = state.peer.close(ticket) else {
            return false;
        };
        state.wire.remove_stream(&closed.limits, Instant::now());
        shared.show_limit(&state);
        if closed.last {
            state.leave();
            peers.peers.remove(&shared.peer);
            self.counters.leave(&shared.peer);
        }
        state.nudge();
        let after = state.give_back();
        drop(peers);
        if closed.last {
            self.changed(shared.peer);
        }
        after.run(&self.counters.hook_panics);
        true
    }

    /// Closes every stream, for good.
    pub(crate) fn close_all(&self) {
        let mut peers = lock(&self.peers);
        peers.closed = true;
        let all = std::mem::take(&mut peers.peers);
        drop(peers);
        for (peer, shared) in all {
            let after = {
                let mut state = shared.lock();
                state.peer.close_all();
                state.leave();
                state.give_back()
            };
            self.counters.leave(&peer);
            after.run(&self.counters.hook_panics);
            self.changed(peer);
        }
    }

    /// A finished handshake. None if the connection is not wanted: nobody has a stream to the peer any more, or it has come
    /// too often.
    pub(crate) fn arrived(self: &Arc<Self>, peer: &PeerId, outbound: bool) -> Option<Lease> {
        let shared = self.get(peer)?;
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        {
            let mut state = shared.lock();
            if state.gone || !(outbound || state.inbound.remove(1, now)) {
                return None;
            }
            state.wire.new_connection(now);
            state.links.insert(generation, LinkState::default());
            state.slots.arrive(generation, outbound, now);
            state.follow_slots(now);
        }
        shared.counters.conn_established.one();
        if !outbound {
            shared.counters.conn_established_inbound.one();
        }
        self.changed(*peer);
        Some(Lease {
            registry: self.clone(),
            shared,
            generation,
        })
    }

    fn changed(&self, peer: PeerId) {
        if let Some(waker) = self.note_change(peer) {
            self.counters.hook_panics.call(Hook::Waker, || waker.wake());
        }
    }

    /// Whom to wake for it, under no lock.
    fn note_change(&self, peer: PeerId) -> Option<Waker> {
        let mut changes = lock(&self.changes);
        changes.peers.insert(peer);
        changes.waker.take()
    }

    /// The next peer whose needs may have changed.
    pub(crate) fn poll_changed(&self, cx: &Context<'_>) -> Poll<(PeerId, Need)> {
        let mut changes = lock(&self.changes);
        let Some(peer) = changes.peers.iter().next().copied() else {
            let former = changes.waker.replace(cx.waker().clone());
            drop(changes);
            self.counters.hook_panics.call(Hook::Waker, || drop(former));
            return Poll::Pending;
        };
        changes.peers.remove(&peer);
        drop(changes);
        Poll::Ready((peer, self.need(&peer)))
    }

    pub(crate) fn need(&self, peer: &PeerId) -> Need {
        match self.get(peer) {
            None => Need::Forget,
            Some(shared) if shared.lock().slots.active().is_some() => Need::Nothing,
            Some(_) => Need::Connection,
        }
    }
}

/// One peer.
pub(crate) struct Shared {
    pub(crate) peer: PeerId,
    host: Arc<HostCounters>,
    pub(crate) counters: Arc<PeerCounters>,
    state: Mutex<State>,
}

struct State {
    peer: Peer,
    slots: Slots,
    wire: WireBucket,
    inbound: TokenBucket,
    links: HashMap<u64, LinkState>,
    gone: bool,
}

#[derive(Default)]
struct LinkState {
    waker: Option<Waker>,
    /// It has nothing to write and waits to be told.
    idle: bool,
}

impl State {
    /// Tells the connection in use that there is something to write.
    fn nudge(&mut self) {
        if let Some(generation) = self.peer.generation()
            && self.peer.has_frames()
            && let Some(link) = self.links.get_mut(&generation)
            && link.idle
        {
            link.idle = false;
            self.peer.after.wake.extend(link.waker.clone());
        }
    }

    /// The slots may have chosen another connection.
    fn follow_slots(&mut self, now: Instant) {
        let active = self.slots.active();
        if active == self.peer.generation() {
            return;
        }
        match active {
            Some(generation) => self.peer.attach(generation, now),
            None => self.peer.detach(),
        }
        self.wake_all();
    }

    /// The last stream is closed.
    fn leave(&mut self) {
        self.gone = true;
        self.slots.clear();
        self.peer.detach();
        self.wake_all();
    }

    /// Every connection looks what it is to do.
    fn wake_all(&mut self) {
        let wakers = self.links.values().filter_map(|link| link.waker.clone());
        self.peer.after.wake.extend(wakers);
    }
}

/// The lock of a peer. Once it is given back, what came up meanwhile is done: see [`After`].
struct Locked<'a> {
    shared: &'a Shared,
    state: Option<MutexGuard<'a, State>>,
}

impl Locked<'_> {
    /// Returns what came up, for a caller that holds another lock.
    fn give_back(mut self) -> After {
        let after = self.state.as_mut().map(|state| std::mem::take(&mut state.peer.after));
        self.state = None;
        after.unwrap_or_default()
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_ref().expect("until it is given back")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("until it is given back")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let Some(mut state) = self.state.take() else {
            return;
        };
        if !state.peer.after.is_empty() {
            let after = std::mem::take(&mut state.peer.after);
            drop(state);
            after.run(&self.shared.host.hook_panics);
        }
    }
}

impl Shared {
    fn lock(&self) -> Locked<'_> {
        let state = Some(lock(&self.state));
        Locked { shared: self, state }
    }

    fn show_limit(&self, state: &State) {
        let (rate, capacity) = state.wire.limit();
        self.counters.rawconn_rate_limit_rate.set(rate);
        self.counters.rawconn_rate_limit_capacity.set(capacity);
    }

    pub(crate) fn send(&self, ticket: Ticket, outbound: Outbound, payload: Bytes) -> Sent {
        let mut state = self.lock();
        let sent = state.peer.send(ticket, outbound, payload);
        state.nudge();
        sent
    }

    pub(crate) fn poll_recv(&self, ticket: Ticket, cx: &Context<'_>) -> Poll<Option<Inbound>> {
        self.lock().peer.poll_recv(ticket, cx)
    }

    pub(crate) fn is_open(&self, ticket: Ticket) -> bool {
        self.lock().peer.is_open(ticket)
    }

    pub(crate) fn update(&self, ticket: Ticket, limits: Limits) -> Result<(), UpdateError> {
        limits.check()?;
        let now = Instant::now();
        let mut state = self.lock();
        let old = state.peer.update(ticket, limits, now).ok_or(UpdateError::Closed)?;
        state.wire.remove_stream(&old, now);
        state.wire.add_stream(&limits, now);
        self.show_limit(&state);
        Ok(())
    }

    /// Whether so many bytes more may come over the wire.
    pub(crate) fn allows(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        let State { peer, wire, .. } = &mut *state;
        peer.allows(wire, bytes, Instant::now())
    }

    /// Whether a connection with it is in use.
    pub(crate) fn is_connected(&self) -> bool {
        self.lock().slots.active().is_some()
    }
}
