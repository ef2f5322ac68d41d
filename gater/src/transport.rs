//! The gate round a transport: what is refused here the Swarm never hears of.

use crate::address::{Parts, TransportKind};
use crate::context::{Accept, AddrDial, Direction, Link, PendingConnection};
use crate::error::Error;
use crate::gate::{Gate, Shared};
use crate::user_code::Hook;
use crate::verdict::Stage;
use crate::wakers::Seat;
use futures::FutureExt as _;
use futures_timer::Delay;
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::{Endpoint, Multiaddr};
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Refusals in one turn, at most: a flood of them must not keep whoever polls from its other work. One takes some 20 µs, nearly all of
/// it the kernel's, for a TCP connection that is accepted and closed.
const REFUSALS_IN_A_ROW: usize = 2;
/// How long nothing is accepted after so many. To wake and to go on would not do: a runtime that has something to run looks for
/// news from the network only now and then, and the answers that others wait for would lie there until the flood's sockets are
/// all refused.
const PAUSE: Duration = Duration::from_micros(50);

/// A transport that asks the gate about everything it accepts and every address it dials. Made by [`Gate::transport`].
///
/// What is refused on the way in is dropped before anything is read from it or written to it, and the Swarm sees no event
/// of it: at most 2 in a row, then nothing is accepted for 50 µs and whoever polls has the processor to itself. A flood that is
/// faster than that waits in the kernel's queue, and others behind it. What is refused on the way out is
/// [`Error::Denied`], and no packet is sent; mind that libp2p's behaviours forget an address whose dial has failed, for
/// whatever reason.
///
/// When a rule is tightened, handshakes that it does not allow any more fail with the same error, in both directions.
pub struct Transport<T> {
    inner: T,
    gate: Gate,
    beneath: Option<TransportKind>,
    /// Where it listens, if another transport stands on it.
    listening: Vec<(ListenerId, Multiaddr)>,
    /// Until when nothing more is accepted.
    pause: Option<Delay>,
}

impl<T> Transport<T> {
    pub(crate) fn new(inner: T, gate: Gate) -> Self {
        Self {
            inner,
            gate,
            beneath: None,
            listening: Vec::new(),
            pause: None,
        }
    }

    /// Says that another transport, of that kind, stands on this one, as a knock does on the TCP it is given. The policy
    /// is told that kind, and the accept stage is then asked as soon as a socket is accepted, not when its knock has come.
    ///
    /// What this costs: a socket that is refused here is closed at once. To whoever is blocked the port does not look as
    /// if nobody was there.
    ///
    /// ```
    /// # fn f(gate: &libp2p_gater::Gate, config: libp2p_knock::Config) {
    /// use libp2p_gater::TransportKind;
    /// let tcp = libp2p::tcp::tokio::Transport::new(libp2p::tcp::Config::default());
    /// let transport = libp2p_knock::Transport::new(gate.transport(tcp).beneath(TransportKind::Knock), config)
    ///     .with_executor(|task| drop(tokio::spawn(task)));
    /// # drop(transport);
    /// # }
    /// ```
    pub fn beneath(mut self, kind: TransportKind) -> Self {
        self.beneath = Some(kind);
        self
    }

    fn link<'a>(&self, link: Link<'a>) -> Link<'a> {
        match self.beneath {
            Some(kind) => link.with_kind(kind),
            None => link,
        }
    }

    /// Whether what has been accepted may come in.
    fn admits(&mut self, listener: ListenerId, local: &Multiaddr, remote: &Multiaddr) -> bool {
        // It can come before its listener's address does.
        self.listens(listener, local);
        let shared = &self.gate.0;
        let version = shared.version();
        // A part that stands further in may have asked.
        if self.beneath.is_none() && shared.joins().was_accepted(version, local, remote) {
            shared.note(|joins| joins.accepted(version, local, remote));
            return true;
        }
        shared.part_asks();
        let link = self.link(Link::inbound(local, remote)).with_listener(listener);
        let verdict = shared.ask(Hook::Accept, |policy| policy.intercept_accept(&Accept::new(link)));
        if shared.settle(Stage::Accept, None, &link, verdict).is_err() {
            return false;
        }
        if self.beneath.is_none() {
            shared.note(|joins| joins.accepted(version, local, remote));
        }
        true
    }

    fn listens(&mut self, listener: ListenerId, address: &Multiaddr) {
        let known = |(id, at): &(ListenerId, Multiaddr)| *id == listener && at == address;
        if let Some(kind) = self.beneath
            && !self.listening.iter().any(known)
        {
            self.gate.0.joins().listens_beneath(address, kind);
            self.listening.push((listener, address.clone()));
        }
    }

    fn listens_no_more(&mut self, gone: impl Fn(&(ListenerId, Multiaddr)) -> bool) {
        let Some(kind) = self.beneath else { return };
        let gate = &self.gate;
        self.listening.retain(|at| {
            if gone(at) {
                gate.0.joins().listens_no_more(&at.1, kind);
            }
            !gone(at)
        });
    }
}

impl<T> Drop for Transport<T> {
    fn drop(&mut self) {
        self.listens_no_more(|_| true);
    }
}

impl<T> std::fmt::Debug for Transport<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("beneath", &self.beneath)
            .finish_non_exhaustive()
    }
}

impl<T> libp2p_core::Transport for Transport<T>
where
    T: libp2p_core::Transport + Unpin,
    T::Error: 'static,
{
    type Output = T::Output;
    type Error = Error<T::Error>;
    type ListenerUpgrade = Gated<T::ListenerUpgrade>;
    type Dial = Gated<T::Dial>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Self::Error>> {
        self.inner
            .listen_on(id, address)
            .map_err(|error| error.map(Error::Inner))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Self::Error>> {
        let version = self.gate.0.version();
        // The inner transport first, which does nothing yet: an address that it does not know is another transport's, and is
        // asked about there.
        let (dial, asked) = inside(&self.gate, || self.inner.dial(address.clone(), opts));
        let dial = dial.map_err(|error| error.map(Error::Inner))?;
        let shared = &self.gate.0;
        let link = self.link(Link::outbound(&address, opts.role));
        let circuit = link
            .parts
            .is_relayed()
            .then(|| shared.joins().circuit(version, &address))
            .flatten();
        match circuit {
            _ if asked => {}
            Some(None) => {}
            Some(Some(denied)) => return Err(TransportError::Other(denied.into())),
            None => {
                shared.part_asks();
                let question = AddrDial::new(link.parts.peer.as_ref(), link);
                let verdict = shared.ask(Hook::AddrDial, |policy| policy.intercept_addr_dial(&question));
                shared
                    .settle(Stage::AddrDial, link.parts.peer.as_ref(), &link, verdict)
                    .map_err(|denied| TransportError::Other(denied.into()))?;
            }
        }
        has_asked(&self.gate);
        let attempt = Attempt {
            direction: Direction::Outbound,
            role: opts.role,
            local: None,
            remote: address,
            kind: self.beneath,
            version,
        };
        Ok(Gated::new(dial, attempt, &self.gate))
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            std::task::ready!(pause.poll_unpin(cx));
            this.pause = None;
        }
        for _ in 0..REFUSALS_IN_A_ROW {
            let version = this.gate.0.version();
            let event = std::task::ready!(Pin::new(&mut this.inner).poll(cx));
            match &event {
                TransportEvent::Incoming {
                    listener_id,
                    local_addr,
                    send_back_addr,
                    ..
                } => {
                    if !this.admits(*listener_id, local_addr, send_back_addr) {
                        // Dropping it closes it.
                        continue;
                    }
                }
                TransportEvent::NewAddress {
                    listener_id,
                    listen_addr,
                } => this.listens(*listener_id, listen_addr),
                TransportEvent::AddressExpired {
                    listener_id,
                    listen_addr,
                } => this.listens_no_more(|(id, at)| id == listener_id && at == listen_addr),
                TransportEvent::ListenerClosed { listener_id, .. } => this.listens_no_more(|(id, _)| id == listener_id),
                TransportEvent::ListenerError { .. } => {}
            }
            let (gate, kind) = (&this.gate, this.beneath);
            let attempt = match &event {
                TransportEvent::Incoming {
                    local_addr,
                    send_back_addr,
                    ..
                } => Some(Attempt {
                    direction: Direction::Inbound,
                    role: Endpoint::Listener,
                    local: Some(local_addr.clone()),
                    remote: send_back_addr.clone(),
                    kind,
                    version,
                }),
                _ => None,
            };
            return Poll::Ready(
                event
                    .map_upgrade(|upgrade| Gated {
                        inner: upgrade,
                        waiting: attempt.map(|attempt| Waiting::new(attempt, gate)),
                    })
                    .map_err(Error::Inner),
            );
        }
        let mut pause = Delay::new(PAUSE);
        if pause.poll_unpin(cx).is_ready() {
            cx.waker().wake_by_ref();
        } else {
            this.pause = Some(pause);
        }
        Poll::Pending
    }
}

thread_local! {
    /// The gates round whose transports dials are being made on this thread, and whether a part further in has asked.
    static INSIDE: RefCell<Vec<(usize, bool)>> = const { RefCell::new(Vec::new()) };
}

/// Runs `dial` of what a transport stands round, and says whether another transport of the same gate has asked in there.
fn inside<T>(gate: &Gate, dial: impl FnOnce() -> T) -> (T, bool) {
    /// Also where `dial` panics.
    struct Leave;

    impl Drop for Leave {
        fn drop(&mut self) {
            INSIDE.with_borrow_mut(Vec::pop);
        }
    }

    INSIDE.with_borrow_mut(|gates| gates.push((Arc::as_ptr(&gate.0).addr(), false)));
    let leave = Leave;
    let done = dial();
    let asked = INSIDE.with_borrow(|gates| gates.last().is_some_and(|gate| gate.1));
    drop(leave);
    (done, asked)
}

/// Tells those further out.
fn has_asked(gate: &Gate) {
    let own = Arc::as_ptr(&gate.0).addr();
    INSIDE.with_borrow_mut(|gates| {
        for (gate, asked) in gates {
            *asked |= *gate == own;
        }
    });
}

/// What a handshake under way is judged by.
struct Attempt {
    direction: Direction,
    role: Endpoint,
    local: Option<Multiaddr>,
    remote: Multiaddr,
    kind: Option<TransportKind>,
    /// The state of the policy that it was allowed by.
    version: u64,
}

impl Attempt {
    fn link(&self) -> Link<'_> {
        let link = match (&self.local, self.direction) {
            (Some(local), Direction::Inbound) => Link::inbound(local, &self.remote),
            _ => Link::outbound(&self.remote, self.role),
        };
        match self.kind {
            Some(kind) => link.with_kind(kind),
            None => link,
        }
    }
}

/// A handshake's place among those that a tightened rule wakes.
struct Waiting {
    attempt: Attempt,
    shared: Arc<Shared>,
    seat: Seat,
}

impl Waiting {
    fn new(attempt: Attempt, gate: &Gate) -> Self {
        let shared = gate.0.clone();
        let seat = shared.attempts_wait.seat();
        Self { attempt, shared, seat }
    }

    /// Whether it is still allowed, if the policy may have changed its mind.
    fn judge<E>(&mut self, cx: &Context<'_>) -> Result<(), Error<E>> {
        // First this, or a change in between would be missed.
        self.shared.attempts_wait.wait(&mut self.seat, cx.waker());
        let version = self.shared.version();
        if version == self.attempt.version {
            return Ok(());
        }
        self.attempt.version = version;
        let link = self.attempt.link();
        let peer = link.parts.peer;
        let question = PendingConnection::new(peer.as_ref(), link);
        let verdict = self
            .shared
            .ask(Hook::JudgePending, |policy| policy.judge_pending(&question));
        if verdict.is_deny() {
            self.shared.settle(Stage::Live, peer.as_ref(), &link, verdict)?;
        }
        Ok(())
    }

    /// The handshake is over, and well.
    fn done(&self) {
        if self.attempt.direction == Direction::Inbound {
            return;
        }
        let parts = Parts::of(&self.attempt.remote);
        let kind = self.attempt.kind.unwrap_or(parts.kind);
        let version = self.attempt.version;
        self.shared
            .note(|joins| joins.dialled(version, &self.attempt.remote, kind, parts.peer));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.attempts_wait.leave(&mut self.seat);
    }
}

pin_project_lite::pin_project! {
    /// A dial, or the handshake of what was accepted, that fails when a rule is tightened against it.
    #[must_use = "a future does nothing unless it is polled"]
    pub struct Gated<F> {
        #[pin]
        inner: F,
        waiting: Option<Waiting>,
    }
}

impl<F> Gated<F> {
    fn new(inner: F, attempt: Attempt, gate: &Gate) -> Self {
        let waiting = Some(Waiting::new(attempt, gate));
        Self { inner, waiting }
    }
}

impl<F, O, E> Future for Gated<F>
where
    F: Future<Output = Result<O, E>>,
{
    type Output = Result<O, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(waiting) = this.waiting
            && let Err(denied) = waiting.judge(cx)
        {
            *this.waiting = None;
            return Poll::Ready(Err(denied));
        }
        let output = std::task::ready!(this.inner.poll(cx)).map_err(Error::Inner)?;
        if let Some(waiting) = this.waiting.take() {
            waiting.done();
        }
        Poll::Ready(Ok(output))
    }
}
