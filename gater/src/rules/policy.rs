//! The rules as a policy: facts of each stage in, a verdict out.

use super::counts::{Cap, counted};
use super::facts::Facts;
use super::limits::Rate;
use super::rates::Buckets;
use super::rule::Rule;
use super::snapshot::{Because, Found, Outright, Snapshot};
use super::{Rules, Shared, denials, lock};
use crate::changes::Changes;
use crate::context::{
    Accept, AddrDial, Direction, Knock, Link, LiveConnection, PeerDial, PendingConnection, Secured, Upgraded,
};
use crate::gater::{ConnectionGater, Explanation, Observation};
use crate::verdict::{Reason, Said, Stage, Verdict};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::time::Duration;

impl ConnectionGater for Rules {
    fn intercept_peer_dial(&self, dial: &PeerDial<'_>) -> Verdict {
        self.0.verdict(&Facts {
            stage: Stage::PeerDial,
            direction: Direction::Outbound,
            peer: Some(dial.peer),
            link: None,
        })
    }

    fn intercept_addr_dial(&self, dial: &AddrDial<'_>) -> Verdict {
        // The peer that the address names is the one that is dialled; it will have to prove it.
        let peer = dial.peer.or(dial.link.parts.peer.as_ref());
        self.0.verdict(&facts(Stage::AddrDial, peer, &dial.link))
    }

    fn intercept_accept(&self, accept: &Accept<'_>) -> Verdict {
        self.0.verdict(&facts(Stage::Accept, None, &accept.link))
    }

    fn intercept_knock(&self, knock: &Knock<'_>) -> Verdict {
        self.0.verdict(&facts(Stage::Knock, Some(knock.peer), &knock.link))
    }

    fn intercept_secured(&self, secured: &Secured<'_>) -> Verdict {
        self.0
            .verdict(&facts(Stage::Secured, Some(secured.peer), &secured.link))
    }

    fn intercept_upgraded(&self, upgraded: &Upgraded<'_>) -> Verdict {
        self.0
            .verdict(&facts(Stage::Upgraded, Some(upgraded.peer), &upgraded.link))
    }

    fn judge_live(&self, live: &LiveConnection<'_>) -> Verdict {
        self.0.standing(&facts(Stage::Live, Some(live.peer), &live.link))
    }

    fn judge_pending(&self, pending: &PendingConnection<'_>) -> Verdict {
        // Of what was accepted, nobody has proven the peer yet.
        let peer = pending.peer.filter(|_| pending.link.direction == Direction::Outbound);
        self.0.standing(&facts(Stage::Live, peer, &pending.link))
    }

    fn observe(&self, observation: &Observation<'_>) {
        let mut counts = lock(&self.0.counts);
        match observation {
            Observation::Pending { connection, link, .. } => counts.pending(*connection, link.direction),
            Observation::Failed { connection, .. } => counts.failed(*connection),
            Observation::Established { connection, peer, link } => {
                counts.established(*connection, peer, link.direction, &link.parts);
            }
            Observation::Closed { connection, .. } => counts.closed(*connection),
        }
    }

    fn changes(&self) -> Vec<Changes> {
        vec![self.0.changes.clone()]
    }

    fn tick(&self) -> Option<Duration> {
        self.0.tick()
    }

    fn denial_rules(&self, stage: Stage) -> Vec<std::borrow::Cow<'static, str>> {
        denials::at(stage).map(Into::into).collect()
    }

    fn explain(&self, peer: Option<&PeerId>, address: Option<&Multiaddr>) -> Vec<Explanation> {
        self.explanations(peer, address)
    }
}

fn facts<'a>(stage: Stage, peer: Option<&'a PeerId>, link: &'a Link<'a>) -> Facts<'a> {
    Facts {
        stage,
        direction: link.direction,
        peer,
        link: Some(link),
    }
}

/// Whether tokens are taken, or only looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokens {
    Look,
    Take,
}

impl Shared {
    fn verdict(&self, facts: &Facts<'_>) -> Verdict {
        self.current.with(|now| {
            let outright = now.outright(facts);
            // What a flood meets: said at once, where nothing can outrank it.
            if now.short && outright.peer.is_some() {
                return Verdict::Deny(Reason::fixed(&BLOCKED_PEER));
            }
            if now.short && outright.network && !outright.ruled {
                return Verdict::Deny(Reason::fixed(&BLOCKED_NETWORK));
            }
            verdict(self.decide(now, facts, outright, Tokens::Take))
        })
    }

    /// Without what counts.
    fn standing(&self, facts: &Facts<'_>) -> Verdict {
        self.current
            .with(|now| match now.judge(facts, now.outright(facts), &|| self.now()) {
                Ok(_) => Verdict::Pass,
                Err(because) => verdict(because),
            })
    }

    #[inline]
    pub(super) fn decide<'s>(
        &self,
        now: &'s Snapshot,
        facts: &Facts<'s>,
        outright: Outright<'s>,
        tokens: Tokens,
    ) -> Because<'s> {
        let perhaps = match now.judge(facts, outright, &|| self.now()) {
            Ok(perhaps) => perhaps,
            Err(because) => return because,
        };
        let counted = matches!(facts.stage, Stage::Accept | Stage::AddrDial);
        if counted && !now.rates.is_empty() {
            let time = (self.clock.steady)();
            if let Err((at, wait)) = rated(&now.rates, &mut lock(&self.buckets), facts, time, tokens) {
                return Because::Rate(at, wait);
            }
        }
        let Some(caps) = &now.caps else { return Because::Nothing };
        let counts = lock(&self.counts);
        let full = match perhaps {
            true => counts.no_place(caps, facts.stage, facts.peer),
            false => counts.full(caps, facts.stage, facts.direction, facts.peer, facts.parts()),
        };
        full.map_or(Because::Nothing, |(cap, most)| Because::Cap(cap, most))
    }
}

fn rated(
    rates: &[Rate],
    buckets: &mut Buckets,
    facts: &Facts<'_>,
    now: Duration,
    tokens: Tokens,
) -> Result<(), (u8, Duration)> {
    let these = (0..).zip(rates).filter(|(_, rate)| rate.direction == facts.direction);
    let ip = facts.parts().and_then(counted);
    match tokens {
        Tokens::Look => buckets.look(these, ip, now),
        Tokens::Take => buckets.take(these, ip, now),
    }
}

macro_rules! reasons {
    ($($name:ident = $rule:literal: $detail:literal;)*) => {
        $(static $name: Said = Said::new($rule, $detail);)*
    };
}

// Ready, for a flood is refused with these.
reasons! {
    MALFORMED = "malformed_address": "the address can be read in two ways";
    NO_KNOCK_EVERYBODY = "require_knock": "nobody may connect without a knock";
    NO_KNOCK_PEER = "require_knock": "this peer may not connect without a knock";
    BLOCKED_PEER = "block_peer": "the peer is blocked";
    BLOCKED_NETWORK = "block_network": "the address is in a blocked network";
    NAME = "refuse_names": "the address has a name instead of an IP";
    NO_MEMBER = "admit_members": "the peer is a member of no set";
    NOT_KNOWN_THERE = "admit_known_addresses": "no member is known at the address";
    CAP_TOTAL = "cap_total": "there are as many connections as there may be";
    CAP_INBOUND = "cap_inbound": "there are as many inbound connections as there may be";
    CAP_OUTBOUND = "cap_outbound": "there are as many outbound connections as there may be";
    CAP_PENDING_INBOUND = "cap_pending_inbound": "there are as many inbound attempts as there may be";
    CAP_PENDING_OUTBOUND = "cap_pending_outbound": "there are as many dials under way as there may be";
    CAP_PER_PEER = "cap_per_peer": "there are as many connections with the peer as there may be";
    CAP_PER_IP = "cap_per_ip": "there are as many connections with the IP as there may be";
    CAP_PER_PREFIX = "cap_per_prefix": "there are as many connections with the IP's neighbourhood as there may be";
    CAP_TRANSPORT = "cap_transport": "there are as many connections over the transport as there may be";
}

pub(super) fn verdict(because: Because<'_>) -> Verdict {
    let reason: &'static Said = match because {
        Because::Nothing => return Verdict::Pass,
        Because::Allowed(_) => return Verdict::Allow,
        Because::Blocked(found) => return Verdict::Deny(blocked(found)),
        Because::Rate(_, wait) => {
            let reason = Reason::new("rate").with_detail("too often from the IP's neighbourhood");
            return Verdict::Deny(reason.with_retry_after(wait));
        }
        Because::Malformed => &MALFORMED,
        Because::NoKnock { everybody: true } => &NO_KNOCK_EVERYBODY,
        Because::NoKnock { everybody: false } => &NO_KNOCK_PEER,
        Because::Name => &NAME,
        Because::NoMember => &NO_MEMBER,
        Because::NotKnownThere => &NOT_KNOWN_THERE,
        Because::Cap(cap, _) => match cap {
            Cap::Total => &CAP_TOTAL,
            Cap::Direction(Direction::Inbound) => &CAP_INBOUND,
            Cap::Direction(Direction::Outbound) => &CAP_OUTBOUND,
            Cap::Pending(Direction::Inbound) => &CAP_PENDING_INBOUND,
            Cap::Pending(Direction::Outbound) => &CAP_PENDING_OUTBOUND,
            Cap::PerPeer => &CAP_PER_PEER,
            Cap::PerIp => &CAP_PER_IP,
            Cap::PerPrefix => &CAP_PER_PREFIX,
            Cap::Transport(_) => &CAP_TRANSPORT,
        },
    };
    Verdict::Deny(Reason::fixed(reason))
}

fn blocked(found: Found<'_>) -> Reason {
    match found {
        Found::Peer(_) => Reason::fixed(&BLOCKED_PEER),
        Found::Network(_) => Reason::fixed(&BLOCKED_NETWORK),
        Found::Set(name) => Reason::new("block_set").with_detail(format!("the peer is in the set {name}")),
        Found::Rule(rule) => {
            let name = match rule {
                Rule { peer: Some(_), .. } => "block_peer",
                Rule { network: Some(_), .. } => "block_network",
                _ => "block",
            };
            // The note is for the operator's eyes as much as the rest; what goes to the peer is the caller's to choose.
            Reason::new(name).with_detail(rule.to_string())
        }
    }
}
