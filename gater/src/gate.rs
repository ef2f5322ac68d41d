//! The shared object, and the parts that it hands out.

mod time;

use crate::TransportKind;
use crate::admission::Admission;
use crate::behaviour::Behaviour;
use crate::changes::Changes;
use crate::context::{Knock, Link, Secured};
use crate::gater::{ConnectionGater, Explanation, Observation};
use crate::goodbye::{self, Code, Goodbye};
use crate::joins::Joins;
use crate::metrics::Metrics;
use crate::transport::Transport;
use crate::upgrade::Upgrade;
use crate::user_code::{self, Hook, HookPanics};
use crate::verdict::{Denied, Stage, Verdict};
use crate::wakers::Wakers;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p_core::{ConnectedPoint, Multiaddr};
use libp2p_identity::{Keypair, PeerId};
use libp2p_swarm::ConnectionId;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use web_time::Instant;

/// After that long, a connection that somebody wants closed belongs to no behaviour any more.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// One policy, and the parts that ask it. Cheap to clone; clones are the same gate.
///
/// Each part that is installed asks its stages as early as they can be asked; what is not installed the behaviour asks
/// for, later. Each stage is asked once for each connection in either case. What is asked where, and what the other end
/// has seen by then, is in the table in the README.
///
/// One gate serves several Swarms, each with a behaviour of its own.
#[derive(Clone)]
pub struct Gate(pub(crate) Arc<Shared>);

/// That a connection be closed.
struct Wish {
    peer: PeerId,
    goodbye: Goodbye,
    since: Instant,
}

pub(crate) struct Shared {
    /// Asked through [`Self::ask`] and [`Self::tell`].
    policy: Box<dyn ConnectionGater>,
    /// Asked through [`Self::ask_about`], behind the policy.
    admission: Admission,
    metrics: Metrics,
    panics: HookPanics,
    /// How often the policy, or somebody for it, has said that it was tightened.
    tightened: AtomicU64,
    /// The tasks of the behaviours.
    pub(crate) behaviours_wait: Wakers,
    /// Those of dials and handshakes.
    pub(crate) attempts_wait: Wakers,
    joins: Mutex<Joins>,
    /// Behaviours that take notes.
    behaviours: AtomicUsize,
    /// Connections that somebody wants closed.
    wanted_closed: Mutex<HashMap<ConnectionId, Wish>>,
    /// How many there have been: a behaviour that has looked at all of them looks no further.
    wishes: AtomicU64,
    /// How often the policy has said that it wants to be called at another time.
    schedule: AtomicU64,
    timer: OnceLock<Box<MakeTimer>>,
    /// Whether there has ever been a behaviour.
    has_had_behaviour: AtomicBool,
    /// Whether the log says that there has been no behaviour.
    said_alone: AtomicBool,
    /// Keep the policy's bells ringing here.
    listeners: OnceLock<[Arc<dyn Fn() + Send + Sync>; 2]>,
}

type MakeTimer = dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync;

impl Gate {
    /// A gate for `policy`, which may be a single one, [`FirstWins`](crate::FirstWins) or
    /// [`AllMustAllow`](crate::AllMustAllow).
    pub fn new(policy: impl ConnectionGater) -> Self {
        let bells: Vec<Changes> = policy.changes();
        let shared = Arc::new(Shared {
            policy: Box::new(policy),
            admission: Admission::default(),
            metrics: Metrics::none(),
            panics: HookPanics::default(),
            tightened: AtomicU64::new(0),
            behaviours_wait: Wakers::default(),
            attempts_wait: Wakers::default(),
            joins: Mutex::default(),
            behaviours: AtomicUsize::new(0),
            wanted_closed: Mutex::default(),
            wishes: AtomicU64::new(0),
            schedule: AtomicU64::new(0),
            timer: OnceLock::new(),
            has_had_behaviour: AtomicBool::new(false),
            said_alone: AtomicBool::new(false),
            listeners: OnceLock::new(),
        });
        let listener = |heard: fn(&Shared)| -> Arc<dyn Fn() + Send + Sync> {
            let shared = Arc::downgrade(&shared);
            Arc::new(move || {
                if let Some(shared) = shared.upgrade() {
                    heard(&shared);
                }
            })
        };
        let listeners = [listener(Shared::tighten), listener(Shared::reschedule)];
        for bell in &bells {
            bell.listen(&listeners[0]);
            bell.listen_to_schedule(&listeners[1]);
        }
        // Nothing else sets it.
        let _ = shared.listeners.set(listeners);
        Self(shared)
    }

    /// Waits by `timer` until the policy has to be called again ([`ConnectionGater::tick`]),
    /// instead of by the crate's own timers, which run on a thread of their own. For simulations,
    /// and for clocks that tests own. Only the first counts.
    ///
    /// `timer` and its futures run on the task of the Swarm. If one of them panics the crate's own
    /// takes over for that time.
    pub fn with_timer<F>(self, timer: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // A second one is dropped, as documented.
        let _ = self.0.timer.set(Box::new(move |time| timer(time).boxed()));
        self
    }

    /// Asks `hook` as well, behind the policy and whatever that says: what
    /// `libp2p_connmgr::Manager::hard_cap` gives, over every transport under this gate. Several are
    /// asked in the order in which they were added, and all of them have to allow.
    ///
    /// It is asked at [`Stage::Knock`], and about inbound connections at [`Stage::Secured`] and
    /// [`Stage::Upgraded`] where both ends are known: up to three times about one connection, so it
    /// must count nothing and change nothing. If it denies, the rule is `admission`, and
    /// [`Reason::downcast_ref`](crate::Reason::downcast_ref) finds its error. It runs where the
    /// policy does at that stage, and a panic is a denial.
    ///
    /// All clones of the gate and the parts that they have handed out ask it from now on. So a gate
    /// can be made first, then a manager with [`Self::closer`], and then the manager's cap added.
    pub fn with_admission(
        self,
        hook: impl Fn(&PeerId, &ConnectedPoint) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        self.0.admission.add(hook);
        self
    }

    /// Counts every decision in `registry`, `libp2p_gater_decisions_total` by stage, verdict and
    /// rule; and the goodbyes of all behaviours of this gate, under `libp2p_gater_goodbye`.
    ///
    /// Each label that there can be is there from here on, at zero, with the rules that the policy
    /// lists ([`ConnectionGater::denial_rules`]). What is counted goes on being counted into every
    /// registry that it was in before. A registry takes one gate: two in one process have a
    /// registry each, or a sub-registry with a prefix of its own each.
    ///
    /// A Swarm that is made anew in the same process takes a clone of this gate, and the counters go
    /// on. With the last clone, and all that was made of it, the metrics leave the scrape, and the
    /// registry takes another gate.
    ///
    /// # Errors
    ///
    /// [`AlreadyRegistered`](crate::AlreadyRegistered) if the registry has one of the names. To
    /// find that out it is rendered once, which calls its collectors. A collector that describes
    /// nothing stays in it, also after an error.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn with_metrics(
        self,
        registry: &mut prometheus_client::registry::Registry,
    ) -> Result<Self, crate::AlreadyRegistered> {
        let denials = Stage::ALL.map(|stage| self.0.policy.denial_rules(stage));
        self.0.metrics.register(registry, denials)?;
        Ok(self)
    }

    /// The policy.
    pub fn policy(&self) -> &dyn ConnectionGater {
        &*self.0.policy
    }

    /// Wraps a transport: asks at [`Stage::Accept`] and [`Stage::AddrDial`]. Put it inside DNS, where addresses are
    /// resolved, as `SwarmBuilder::with_other_transport` does, and round whatever makes connections: over a WebSocket or a
    /// knock. What goes round a relay's transport sees relayed addresses as well.
    pub fn transport<T: libp2p_core::Transport>(&self, inner: T) -> Transport<T> {
        Transport::new(inner, self.clone())
    }

    /// What `libp2p_knock::Config::with_admission` takes: asks at [`Stage::Knock`].
    pub fn knock(
        &self,
    ) -> impl Fn(&PeerId, &ConnectedPoint) -> Result<(), Box<dyn Error + Send + Sync>> + Clone + Send + Sync + 'static + use<>
    {
        let shared = self.0.clone();
        move |peer, point| {
            let link = Link::of(point);
            shared.part_asks();
            let question = |policy: &dyn ConnectionGater| policy.intercept_knock(&Knock::new(peer, link));
            Ok(shared.ask_about(Stage::Knock, Hook::Knock, peer, &link, question)?)
        }
    }

    /// What `libp2p_knock::Config::with_secured_hook` takes, and whatever else stands between authentication and a
    /// muxer and knows both ends: asks at [`Stage::Secured`].
    pub fn secured(
        &self,
    ) -> impl Fn(&PeerId, &ConnectedPoint) -> Result<(), Box<dyn Error + Send + Sync>> + Clone + Send + Sync + 'static + use<>
    {
        let shared = self.0.clone();
        move |peer, point| {
            shared.ask_secured(peer, &Link::of(point))?;
            Ok(())
        }
    }

    /// Wraps what makes a security upgrade, for `SwarmBuilder::with_tcp`: asks at [`Stage::Secured`]. An upgrade sees
    /// bytes and no addresses, so the policy is told the peer and the direction alone.
    ///
    /// `with_tcp(Default::default(), gate.upgrade(noise::Config::new), yamux::Config::default)`
    pub fn upgrade<U, E, F>(&self, make: F) -> impl FnOnce(&Keypair) -> Result<Upgrade<U>, E> + use<U, E, F>
    where
        F: FnOnce(&Keypair) -> Result<U, E>,
    {
        self.upgrade_over(TransportKind::Tcp, make)
    }

    /// The same for an upgrade over something else: [`TransportKind::WebSocket`] in `with_websocket`,
    /// [`TransportKind::Relayed`] in `with_relay_client`. The policy takes your word for it.
    pub fn upgrade_over<U, E, F>(
        &self,
        kind: TransportKind,
        make: F,
    ) -> impl FnOnce(&Keypair) -> Result<Upgrade<U>, E> + use<U, E, F>
    where
        F: FnOnce(&Keypair) -> Result<U, E>,
    {
        let gate = self.clone();
        move |keypair| Ok(Upgrade::new(make(keypair)?, kind, gate))
    }

    /// The behaviour: asks at [`Stage::PeerDial`] and [`Stage::Upgraded`], and whatever no other part has asked; closes
    /// what a tightened rule does not want; tells the policy what it may want to count. One for each Swarm.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour::new(self.clone())
    }

    /// Says `goodbye` over a connection and closes it, within a second. Through the behaviour: for a
    /// connection that is gone nothing happens, nor without a behaviour, which the log says once.
    pub fn close(&self, peer: PeerId, connection: ConnectionId, goodbye: Goodbye) {
        self.0.want_closed(peer, connection, goodbye);
    }

    /// What `libp2p_connmgr::Config::with_closer` takes: as [`Self::close`], with [`Code::Trimmed`] and the manager's word
    /// for it.
    pub fn closer(&self) -> impl Fn(PeerId, ConnectionId, &'static str) + Clone + Send + Sync + 'static + use<> {
        // A manager that outlives the gate keeps nothing of it.
        let shared = Arc::downgrade(&self.0);
        move |peer, connection, why| {
            if let Some(shared) = shared.upgrade() {
                shared.want_closed(peer, connection, Goodbye::new(Code::Trimmed).with_text(why));
            }
        }
    }

    /// Judges every live connection and every pending attempt again, soon. For a policy that does not say itself when it
    /// was tightened.
    pub fn recheck(&self) {
        self.0.tighten();
    }

    /// What the policy would answer about `peer` at `address`, and why.
    pub fn explain(&self, peer: Option<&PeerId>, address: Option<&Multiaddr>) -> Vec<Explanation> {
        self.0.policy.explain(peer, address)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("tightened", &self.0.version())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// What the policy answers. A panic is a denial.
    #[inline]
    pub(crate) fn ask(&self, hook: Hook, question: impl FnOnce(&dyn ConnectionGater) -> Verdict) -> Verdict {
        self.call(hook, || question(&*self.policy))
            .unwrap_or_else(Verdict::panicked)
    }

    /// Asks the policy, and then the admission hooks, about a peer that is known.
    pub(crate) fn ask_about(
        &self,
        stage: Stage,
        hook: Hook,
        peer: &PeerId,
        link: &Link<'_>,
        question: impl FnOnce(&dyn ConnectionGater) -> Verdict,
    ) -> Result<(), Denied> {
        let mut verdict = self.ask(hook, question);
        if !verdict.is_deny() {
            match self.call(hook, || self.admission.ask(stage, peer, link)) {
                Some(Ok(())) => {}
                Some(Err(reason)) => verdict = Verdict::Deny(reason),
                None => verdict = Verdict::panicked(),
            }
        }
        self.settle(stage, Some(peer), link, verdict)
    }

    /// Tells the policy what has happened.
    pub(crate) fn tell(&self, observation: &Observation<'_>) {
        self.call(Hook::Observe, || self.policy.observe(observation));
    }

    /// What the user's code returns; nothing if it panics.
    #[inline]
    fn call<T>(&self, hook: Hook, work: impl FnOnce() -> T) -> Option<T> {
        self.counted(hook, || self.panics.call(hook, work))
    }

    /// Counts what panics meanwhile and is caught: a composition inside the policy catches it
    /// first.
    #[inline]
    fn counted<T>(&self, hook: Hook, work: impl FnOnce() -> T) -> T {
        let before = user_code::caught();
        let value = work();
        let panics = user_code::caught().wrapping_sub(before);
        if panics > 0 {
            self.metrics.panicked(hook, panics);
        }
        value
    }

    fn wake(&self, wakers: &Wakers) {
        self.counted(Hook::Waker, || wakers.wake(&self.panics));
    }

    /// Turns an answer into what the caller needs, and counts and logs it on the way.
    pub(crate) fn settle(
        &self,
        stage: Stage,
        peer: Option<&PeerId>,
        link: &Link<'_>,
        verdict: Verdict,
    ) -> Result<(), Denied> {
        self.metrics.decided(stage, &verdict);
        let Verdict::Deny(reason) = verdict else {
            return Ok(());
        };
        tracing::debug!(
            %stage,
            rule = reason.rule(),
            detail = reason.detail().as_deref(),
            peer = peer.map(tracing::field::display),
            remote = link.remote.map(tracing::field::display),
            "denied"
        );
        Err(Denied {
            peer: peer.copied(),
            address: link.remote.cloned(),
            connection: link.connection,
            ..Denied::new(stage, reason)
        })
    }

    /// Asks at [`Stage::Secured`] for a part that is not the behaviour, and leaves a note for the behaviour.
    pub(crate) fn ask_secured(&self, peer: &PeerId, link: &Link<'_>) -> Result<(), Denied> {
        self.part_asks();
        let version = self.version();
        self.ask_about(Stage::Secured, Hook::Secured, peer, link, |policy| {
            policy.intercept_secured(&Secured::new(peer, *link))
        })?;
        self.note(|joins| joins.proven(version, peer, link));
        Ok(())
    }

    /// A part other than the behaviour asks. If there has never been a behaviour, the log says so
    /// once: the policy is then asked at some stages, and what it says later changes nothing.
    #[inline]
    pub(crate) fn part_asks(&self) {
        if !self.has_had_behaviour.load(Ordering::Relaxed) {
            self.say_alone();
        }
    }

    #[cold]
    fn say_alone(&self) {
        if !self.said_alone.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the gate has no behaviour in any Swarm: a tightened rule and an expired allow close no connection, \
                 a goodbye is not said, and caps count nothing; add `gate.behaviour()` to the Swarm"
            );
        }
    }

    /// Leaves a note, if anybody is there to take it.
    pub(crate) fn note(&self, leave: impl FnOnce(&mut Joins)) {
        if self.has_behaviour() {
            leave(&mut self.joins());
        }
    }

    pub(crate) fn joins(&self) -> MutexGuard<'_, Joins> {
        lock(&self.joins)
    }

    fn has_behaviour(&self) -> bool {
        self.behaviours.load(Ordering::Acquire) > 0
    }

    pub(crate) fn behaviour_comes(&self) {
        self.has_had_behaviour.store(true, Ordering::Relaxed);
        self.behaviours.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn behaviour_goes(&self) {
        if self.behaviours.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.joins().clear();
            lock(&self.wanted_closed).clear();
        }
    }

    /// What the goodbyes of the behaviours are counted in.
    pub(crate) fn goodbyes(&self) -> goodbye::Metrics {
        self.metrics.goodbye()
    }

    /// Which state of the policy the next answer is of, or of a later one.
    pub(crate) fn version(&self) -> u64 {
        self.tightened.load(Ordering::Acquire)
    }

    fn tighten(&self) {
        self.tightened.fetch_add(1, Ordering::AcqRel);
        self.wake(&self.behaviours_wait);
        self.wake(&self.attempts_wait);
    }

    fn want_closed(&self, peer: PeerId, connection: ConnectionId, goodbye: Goodbye) {
        if !self.has_behaviour() {
            self.part_asks();
            return;
        }
        let mut wanted = lock(&self.wanted_closed);
        let since = Instant::now();
        wanted.insert(connection, Wish { peer, goodbye, since });
        self.wishes.fetch_add(1, Ordering::Release);
        drop(wanted);
        // Handshakes have no part in it.
        self.wake(&self.behaviours_wait);
    }

    /// Takes, out of the connections that are to be closed, those that `mine` knows. Costs nothing
    /// while there are no more than the last time, which `seen` remembers.
    pub(crate) fn take_wanted(
        &self,
        seen: &mut u64,
        mine: impl Fn(&ConnectionId) -> bool,
    ) -> Vec<(PeerId, ConnectionId, Goodbye)> {
        let wishes = self.wishes.load(Ordering::Acquire);
        if std::mem::replace(seen, wishes) == wishes {
            return Vec::new();
        }
        let mut wanted = lock(&self.wanted_closed);
        // With one behaviour what it does not know is gone; with several it may be another's.
        let alone = self.behaviours.load(Ordering::Acquire) == 1;
        let taken = wanted.extract_if(|id, wish| alone || mine(id) || wish.since.elapsed() > FORGOTTEN);
        taken.map(|(id, wish)| (wish.peer, id, wish.goodbye)).collect()
    }
}

/// No code of a user's runs while one of these is held, so a panic elsewhere leaves nothing half
/// done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
