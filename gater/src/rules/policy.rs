//! The rules as a policy: facts of each stage in, a verdict out.

use super::cidr::Cidr;
use super::counts::{Cap, counted};
use super::facts::Facts;
use super::limits::{Prefixes, Rate};
use super::lists::NamedList;
use super::rates::Buckets;
use super::rule::Rule;
use super::sets::{Admission, Standing};
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
use std::fmt;
use std::sync::Arc;
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
            if now.short {
                if let Some(peer) = outright.peer {
                    return Verdict::Deny(blocked(now, Found::Peer(peer)));
                }
                if let Some(network) = outright.network.filter(|_| !outright.ruled) {
                    return Verdict::Deny(Reason::of_network(network));
                }
            }
            verdict(now, self.decide(now, facts, outright, Tokens::Take))
        })
    }

    /// Without what counts.
    fn standing(&self, facts: &Facts<'_>) -> Verdict {
        self.current
            .with(|now| match now.judge(facts, now.outright(facts), &|| self.now()) {
                Ok(_) => Verdict::Pass,
                Err(because) => verdict(now, because),
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

reasons! {
    MALFORMED = "malformed_address": "the address can be read in two ways";
    NO_KNOCK_EVERYBODY = "require_knock": "no knock: require-knock everybody";
    NAME = "refuse_names": "the address has a name instead of an IP: refuse-names";
    NO_MEMBER = "admit_members": "the peer is in no set: admit members";
    NO_MEMBER_THERE = "admit_members": "the peer is in no set: admit known-addresses";
    NOT_KNOWN_THERE = "admit_known_addresses": "no member is known at the IP: admit known-addresses";
}

/// The answer, with the line of the rules that gives it.
pub(super) fn verdict(now: &Snapshot, because: Because<'_>) -> Verdict {
    let reason: &'static Said = match because {
        Because::Nothing => return Verdict::Pass,
        Because::Allowed(_) => return Verdict::Allow,
        Because::Blocked(found) => return Verdict::Deny(blocked(now, found)),
        Because::NoKnock(Some(peer)) => {
            let line = About("no knock", Requires(*peer));
            return Verdict::Deny(Reason::of_line("require_knock", None, line));
        }
        Because::Rate(at, wait) => return Verdict::Deny(rate(now.rates.get(usize::from(at)), wait)),
        Because::Cap(cap, most) => return Verdict::Deny(full(now, cap, most)),
        Because::Malformed => &MALFORMED,
        Because::NoKnock(None) => &NO_KNOCK_EVERYBODY,
        Because::Name => &NAME,
        Because::NoMember if now.admission == Admission::KnownAddresses => &NO_MEMBER_THERE,
        Because::NoMember => &NO_MEMBER,
        Because::NotKnownThere => &NOT_KNOWN_THERE,
    };
    Verdict::Deny(Reason::fixed(reason))
}

fn rate(rate: Option<&Rate>, wait: Duration) -> Reason {
    const OFTEN: &str = "too often from the IP's neighbourhood";
    match rate {
        Some(rate) => Reason::of_line("rate", Some(wait), About(OFTEN, *rate)),
        None => Reason::new("rate").with_detail(OFTEN).with_retry_after(wait),
    }
}

fn full(now: &Snapshot, cap: Cap, most: u32) -> Reason {
    let (name, of) = match cap {
        Cap::Total => ("cap_total", "as many connections as may be"),
        Cap::Direction(Direction::Inbound) => ("cap_inbound", "as many inbound connections as may be"),
        Cap::Direction(Direction::Outbound) => ("cap_outbound", "as many outbound connections as may be"),
        Cap::Pending(Direction::Inbound) => ("cap_pending_inbound", "as many inbound attempts as may be"),
        Cap::Pending(Direction::Outbound) => ("cap_pending_outbound", "as many dials under way as may be"),
        Cap::PerPeer => ("cap_per_peer", "as many connections with the peer as may be"),
        Cap::PerIp => ("cap_per_ip", "as many connections with the IP as may be"),
        Cap::PerPrefix => (
            "cap_per_prefix",
            "as many connections with the IP's neighbourhood as may be",
        ),
        Cap::Transport(_) => ("cap_transport", "as many connections over the transport as may be"),
    };
    let line = CapLine {
        cap,
        most,
        prefixes: now.caps.as_ref().and_then(|caps| Some(caps.per_prefix?.1)),
    };
    Reason::of_line(name, None, About(of, line))
}

fn blocked(now: &Snapshot, found: Found<'_>) -> Reason {
    // A note is for the operator's eyes as much as the rest; what goes to the peer is the caller's
    // to choose.
    match found {
        Found::Peer(peer) => Reason::of_line("block_peer", None, Blocks(*peer)),
        Found::Network(network) => Reason::of_network(network),
        Found::Set(name) => {
            let line = format!("set {name} {}", Standing::Blocked.name());
            Reason::of_line("block_set", None, About("the peer is in a blocked set", line))
        }
        Found::List(name, network) => match now.lists.get(name) {
            Some(list) => Reason::of_line("block_list", None, InList(network, Arc::clone(list))),
            None => Reason::new("block_list").with_detail(network.to_string()),
        },
        Found::Rule(rule) => {
            let name = match &**rule {
                Rule { peer: Some(_), .. } => "block_peer",
                Rule { network: Some(_), .. } => "block_network",
                _ => "block",
            };
            Reason::of_line(name, None, Arc::clone(rule))
        }
    }
}

/// A sentence, and the line of the rules' file.
struct About<L>(&'static str, L);

impl<L: fmt::Display> fmt::Display for About<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

/// As a rule about that peer is written.
struct Blocks(PeerId);

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block peer {}", self.0)
    }
}

struct Requires(PeerId);

impl fmt::Display for Requires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "require-knock peer {}", self.0)
    }
}

/// Which network of which list.
pub(super) struct InList(pub(super) Cidr, pub(super) Arc<NamedList>);

impl fmt::Display for InList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network {} of {}", self.0, self.1)
    }
}

/// A cap as in the rules' file.
pub(super) struct CapLine {
    pub(super) cap: Cap,
    pub(super) most: u32,
    pub(super) prefixes: Option<Prefixes>,
}

impl fmt::Display for CapLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.most;
        match self.cap {
            Cap::Total => write!(f, "cap total {most}"),
            Cap::Direction(direction) => write!(f, "cap {direction} {most}"),
            Cap::Pending(direction) => write!(f, "cap pending-{direction} {most}"),
            Cap::PerPeer => write!(f, "cap per-peer {most}"),
            Cap::PerIp => write!(f, "cap per-ip {most}"),
            Cap::PerPrefix => {
                write!(f, "cap per-prefix {most}")?;
                self.prefixes.map_or(Ok(()), |prefixes| write!(f, " {prefixes}"))
            }
            Cap::Transport(kind) => write!(f, "cap transport {kind} {most}"),
        }
    }
}
