//! What a policy is: six questions, two more for when it changes its mind, and what it is told meanwhile.

use crate::changes::Changes;
use crate::context::{
    Accept, AddrDial, Direction, Knock, Link, LiveConnection, PeerDial, PendingConnection, Secured, Upgraded,
};
use crate::verdict::{Stage, Verdict};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// A policy, asked at every stage of a connection's life.
///
/// Each stage is asked once for each connection (for each address, in
/// [`Self::intercept_addr_dial`]), whatever parts of a [`Gate`](crate::Gate) are installed. Every
/// method is called on a task of the Swarm or of a transport, possibly on several at once: answer
/// from memory, and do not block. The README lists the tasks, and what a slow answer delays there.
/// Nothing is called while a lock of this crate is held, so a method may call its gate and its
/// rules.
///
/// The default of every question is [`Verdict::Pass`], and what every policy passes is allowed.
///
/// # Panics
///
/// A question that panics is a denial, with the rule `policy_panicked`. The panic goes no further;
/// it is logged and counted. [`Self::changes`], [`Self::denial_rules`] and [`Self::explain`] are
/// called in a caller's own call, and panic into that.
pub trait ConnectionGater: Send + Sync + 'static {
    /// We are about to dial a peer; its addresses are not looked at yet. Not asked for a dial that does not name a peer.
    fn intercept_peer_dial(&self, dial: &PeerDial<'_>) -> Verdict {
        let _ = dial;
        Verdict::Pass
    }

    /// We are about to dial an address, which has been resolved where the gate's transport stands inside DNS.
    fn intercept_addr_dial(&self, dial: &AddrDial<'_>) -> Verdict {
        let _ = dial;
        Verdict::Pass
    }

    /// Somebody has connected.
    fn intercept_accept(&self, accept: &Accept<'_>) -> Verdict {
        let _ = accept;
        Verdict::Pass
    }

    /// Somebody has sent a valid knock. Only where the knock transport asks. The peer can be that of a replay: deny by
    /// it, but change nothing by it.
    fn intercept_knock(&self, knock: &Knock<'_>) -> Verdict {
        let _ = knock;
        Verdict::Pass
    }

    /// A peer is proven, in either direction.
    fn intercept_secured(&self, secured: &Secured<'_>) -> Verdict {
        let _ = secured;
        Verdict::Pass
    }

    /// A connection is ready for use, in either direction.
    fn intercept_upgraded(&self, upgraded: &Upgraded<'_>) -> Verdict {
        let _ = upgraded;
        Verdict::Pass
    }

    /// The policy has been tightened ([`Changes::tightened`]): would this connection still be let
    /// in? Asked for every connection after each such change, so it must count nothing, and a cap
    /// that is now exceeded is no reason to deny every connection. If it panics, the connection is
    /// closed.
    fn judge_live(&self, live: &LiveConnection<'_>) -> Verdict {
        let _ = live;
        Verdict::Pass
    }

    /// The same for an attempt that is not a connection yet.
    fn judge_pending(&self, pending: &PendingConnection<'_>) -> Verdict {
        let _ = pending;
        Verdict::Pass
    }

    /// Something has happened that a policy may want to count. In the order in which it happened,
    /// from the task of the Swarm. Only where the gate's behaviour is installed. If it panics, the
    /// other policies of a composition are told all the same.
    fn observe(&self, observation: &Observation<'_>) {
        let _ = observation;
    }

    /// Does what time demands, and says after how long it has to be called again; `None` if never,
    /// until [`Changes::rescheduled`] says otherwise. A policy in which an entry expires that
    /// allows rings [`Changes::tightened`] here, and what only that entry let in is closed.
    ///
    /// Called by the gate's behaviour on the task of its Swarm: at its first poll, when that time
    /// is up, and after [`Changes::rescheduled`]. The answer is taken as at least a millisecond and
    /// at most a day. Without the behaviour this is never called. If it panics it is called again
    /// in a minute.
    fn tick(&self) -> Option<Duration> {
        None
    }

    /// Where this policy says that it has been tightened. Empty for one that never is. Asked once, by
    /// [`Gate::new`](crate::Gate::new).
    fn changes(&self) -> Vec<Changes> {
        Vec::new()
    }

    /// The rules that its denials at `stage` may name ([`Reason::rule`](crate::Reason::rule)), for
    /// metrics: each is counted from zero. One that is not among them is counted from its first
    /// denial on. Called by [`Gate::with_metrics`](crate::Gate::with_metrics) alone.
    fn denial_rules(&self, stage: Stage) -> Vec<Cow<'static, str>> {
        let _ = stage;
        Vec::new()
    }

    /// What would be answered about `peer` at `address`, at which stages and why, as of now. Counts nothing. By which listener
    /// it would come in is not asked: [`Rules`](crate::Rules) passes over rules that depend on that.
    fn explain(&self, peer: Option<&PeerId>, address: Option<&Multiaddr>) -> Vec<Explanation> {
        let _ = (peer, address);
        Vec::new()
    }
}

/// What a policy is told, so that it can count.
///
/// Every [`Self::Pending`] is followed, for the same id, by exactly one [`Self::Established`] or [`Self::Failed`], and
/// every `Established` by one [`Self::Closed`]. An attempt that another behaviour refused first may be neither.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// An attempt has begun: a dial, or something accepted. For a dial `link` has no addresses, for there may be many.
    Pending {
        /// Its id.
        connection: ConnectionId,
        /// Whom it is for, if it says so.
        peer: Option<&'a PeerId>,
        /// What is known of it.
        link: Link<'a>,
    },
    /// The attempt has come to nothing.
    Failed {
        /// Its id.
        connection: ConnectionId,
        /// Which way it went.
        direction: Direction,
    },
    /// A connection is established: every behaviour has agreed to it.
    Established {
        /// Its id.
        connection: ConnectionId,
        /// Who it is.
        peer: &'a PeerId,
        /// Between which ends.
        link: Link<'a>,
    },
    /// An established connection is gone.
    Closed {
        /// Its id.
        connection: ConnectionId,
        /// Who it was.
        peer: &'a PeerId,
        /// Between which ends.
        link: Link<'a>,
    },
}

/// One line of an answer to "what would you say?".
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// At which stage.
    pub stage: Stage,
    /// In which direction.
    pub direction: Direction,
    /// The answer.
    pub verdict: Verdict,
    /// Which rule gives it and why, in a sentence.
    pub why: String,
}

impl Explanation {
    /// Such a line.
    pub fn new(stage: Stage, direction: Direction, verdict: Verdict, why: impl Into<String>) -> Self {
        Self {
            stage,
            direction,
            verdict,
            why: why.into(),
        }
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            stage,
            direction,
            verdict,
            why,
        } = self;
        write!(f, "{stage}, {direction}: {}: {why}", verdict.name())
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        impl<G: ConnectionGater + ?Sized> ConnectionGater for $pointer<G> {
            fn intercept_peer_dial(&self, dial: &PeerDial<'_>) -> Verdict {
                (**self).intercept_peer_dial(dial)
            }
            fn intercept_addr_dial(&self, dial: &AddrDial<'_>) -> Verdict {
                (**self).intercept_addr_dial(dial)
            }
            fn intercept_accept(&self, accept: &Accept<'_>) -> Verdict {
                (**self).intercept_accept(accept)
            }
            fn intercept_knock(&self, knock: &Knock<'_>) -> Verdict {
                (**self).intercept_knock(knock)
            }
            fn intercept_secured(&self, secured: &Secured<'_>) -> Verdict {
                (**self).intercept_secured(secured)
            }
            fn intercept_upgraded(&self, upgraded: &Upgraded<'_>) -> Verdict {
                (**self).intercept_upgraded(upgraded)
            }
            fn judge_live(&self, live: &LiveConnection<'_>) -> Verdict {
                (**self).judge_live(live)
            }
            fn judge_pending(&self, pending: &PendingConnection<'_>) -> Verdict {
                (**self).judge_pending(pending)
            }
            fn observe(&self, observation: &Observation<'_>) {
                (**self).observe(observation);
            }
            fn tick(&self) -> Option<Duration> {
                (**self).tick()
            }
            fn changes(&self) -> Vec<Changes> {
                (**self).changes()
            }
            fn denial_rules(&self, stage: Stage) -> Vec<Cow<'static, str>> {
                (**self).denial_rules(stage)
            }
            fn explain(&self, peer: Option<&PeerId>, address: Option<&Multiaddr>) -> Vec<Explanation> {
                (**self).explain(peer, address)
            }
        }
    )*};
}

forward!(Arc, Box);
