//! Which rule would decide, in sentences.

use super::Rules;
use super::facts::Facts;
use super::policy::{CapLine, InList, Tokens};
use super::rule::Rule;
use super::snapshot::{Because, Found, Snapshot};
use crate::context::{Direction, Link};
use crate::gater::Explanation;
use crate::verdict::Stage;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use std::sync::Arc;

impl Rules {
    /// At each stage that `peer` and `address` reach, in both directions.
    pub(super) fn explanations(&self, peer: Option<&PeerId>, address: Option<&Multiaddr>) -> Vec<Explanation> {
        let now = self.0.current.load();
        let outbound = address.map(|address| Link::outbound(address, Endpoint::Dialer));
        // Which listener it would be is not asked.
        let nowhere = Multiaddr::empty();
        let inbound = address.map(|address| Link {
            local: None,
            ..Link::inbound(&nowhere, address)
        });
        let named = address.and_then(|address| match address.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        });
        let peer = peer.or(named.as_ref());
        let mut stages = Vec::new();
        if peer.is_some() {
            stages.push((Stage::PeerDial, Direction::Outbound, peer, None));
        }
        if let Some(link) = &outbound {
            stages.push((Stage::AddrDial, Direction::Outbound, peer, Some(link)));
        }
        if peer.is_some() {
            stages.push((Stage::Secured, Direction::Outbound, peer, outbound.as_ref()));
        }
        if let Some(link) = &inbound {
            stages.push((Stage::Accept, Direction::Inbound, None, Some(link)));
        }
        if peer.is_some() {
            stages.push((Stage::Secured, Direction::Inbound, peer, inbound.as_ref()));
        }
        stages
            .into_iter()
            .map(|(stage, direction, peer, link)| {
                let facts = Facts {
                    stage,
                    direction,
                    peer,
                    link,
                };
                let because = self.0.decide(&now, &facts, now.outright(&facts), Tokens::Look);
                let why = self.why(&now, &facts, because);
                Explanation::new(stage, direction, super::policy::verdict(&now, because), why)
            })
            .collect()
    }

    fn why(&self, now: &Snapshot, facts: &Facts<'_>, because: Because<'_>) -> String {
        let listed = now.listed(facts, now.outright(facts), &|| self.0.now());
        let mut why = match because {
            Because::Malformed => "the address can be read in two ways".to_owned(),
            Because::NoKnock(None) => "no connection may do without a knock: require-knock everybody".to_owned(),
            Because::NoKnock(Some(peer)) => format!("the peer has to knock: require-knock peer {peer}"),
            Because::Allowed(found) => format!("on the allow list: {}", entry(now, found, true)),
            Because::Blocked(found) => format!("on the block list: {}", entry(now, found, false)),
            Because::Name => "the address has a name instead of an IP: refuse-names".to_owned(),
            Because::NoMember => format!("in no set, and only members are let in: admit {}", now.admission.name()),
            Because::NotKnownThere => {
                "no member is known at that IP, and only such addresses are let in: admit known-addresses".to_owned()
            }
            Because::Rate(at, wait) => match now.rates.get(usize::from(at)) {
                Some(rate) => format!("over the rate `{rate}`, for another {wait:?}"),
                None => "over a rate".to_owned(),
            },
            Because::Cap(cap, most) => {
                let prefixes = now.caps.as_ref().and_then(|caps| Some(caps.per_prefix?.1));
                format!("the cap is reached: {}", CapLine { cap, most, prefixes })
            }
            Because::Nothing => match listed.perhaps {
                Some(found) => format!("may yet turn out to be on the allow list: {}", entry(now, found, true)),
                None => "no rule objects".to_owned(),
            },
        };
        if !matches!(because, Because::Blocked(_) | Because::NoKnock(_) | Because::Malformed)
            && let Some(found) = listed.blocked
        {
            why += &format!("; this outranks the block list: {}", entry(now, found, false));
        }
        why
    }
}

/// As a line of the rules' file.
fn entry(now: &Snapshot, found: Found<'_>, allow: bool) -> String {
    match found {
        Found::Peer(peer) => Rule::block().peer(*peer).to_string(),
        Found::Network(network) => Rule::block().network(network).to_string(),
        Found::Rule(rule) => rule.to_string(),
        Found::Set(name) => format!("set {name} {}", if allow { "allowed" } else { "blocked" }),
        Found::List(name, network) => match now.lists.get(name) {
            Some(list) => InList(network, Arc::clone(list)).to_string(),
            None => network.to_string(),
        },
    }
}

impl Snapshot {
    /// All entries of both lists.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let mut all: Vec<Rule> = Vec::with_capacity(self.blocked.len() + self.networks.len());
        all.extend(self.blocked.iter().map(|key| Rule::block().peer(key.peer())));
        let blocked = self.networks.iter().filter(|(_, entry)| entry.blocked);
        all.extend(blocked.map(|(range, _)| Rule::block().network(range)));
        all.extend(self.with_conditions().map(|rule| Rule::clone(rule)));
        all
    }

    /// All but the blocks that say nothing else.
    pub(super) fn with_conditions(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let peers = self.peers.iter().flat_map(|(_, rules)| rules.iter());
        let networks = self
            .networks
            .iter()
            .flat_map(|(_, entry)| entry.rules.iter().flat_map(|rules| rules.iter()));
        // Those that name a peer as well stand under the peer, too.
        let networks = networks.filter(|rule| rule.peer.is_none());
        peers.chain(networks).chain(self.general.iter())
    }
}
