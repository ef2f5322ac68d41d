//! All rules at one moment, and what they say.

use super::cidr::Cidr;
use super::counts::{Cap, source};
use super::expired::Expired;
use super::facts::Facts;
use super::key::{PeerKey, Words};
use super::limits::{Caps, Rate};
use super::lists::NamedList;
use super::networks::{Networks, Value};
use super::peers::Peers;
use super::rule::{Holds, Rule};
use super::sets::{Admission, PeerSet, Standing};
use super::sharded::Sharded;
use crate::address::{Parts, TransportKind, each_embedded, may_embed};
use crate::context::Direction;
use crate::verdict::Stage;
use libp2p_identity::PeerId;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Rules about one subject that say more than "blocked".
pub(super) type List = Arc<Vec<Arc<Rule>>>;

/// What stands at a range: blocked without conditions, and whatever else.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Entry {
    pub(super) rules: Option<List>,
    pub(super) blocked: bool,
}

impl Value for Entry {
    fn usual() -> Self {
        Self {
            rules: None,
            blocked: true,
        }
    }
}

/// Copied at each change; everything large is shared with the copy.
#[derive(Clone, Default)]
pub(super) struct Snapshot {
    /// Blocked without conditions: most entries of a long list are this.
    pub(super) blocked: Peers,
    pub(super) peers: Sharded<PeerKey, List>,
    pub(super) networks: Networks<Entry>,
    /// About neither a peer nor a network, in the order of insertion.
    pub(super) general: List,
    pub(super) sets: Arc<BTreeMap<String, Arc<PeerSet>>>,
    pub(super) lists: Arc<BTreeMap<String, Arc<NamedList>>>,
    pub(super) knock_everybody: bool,
    pub(super) knock_peers: Sharded<PeerKey, ()>,
    pub(super) refuse_names: bool,
    pub(super) admission: Admission,
    /// `None` where there is no ceiling at all: then nothing is counted up.
    pub(super) caps: Option<Arc<Caps>>,
    /// How many entries of the lists about peers and networks allow, and whether anything does, of sets and other rules too.
    pub(super) allowing: usize,
    pub(super) allows: bool,
    /// Whether nothing but rules about a network outranks a block without conditions, or is named before it.
    pub(super) short: bool,
    /// The narrowest blocks first.
    pub(super) rates: Arc<Vec<Rate>>,
    /// Out of force.
    pub(super) expired: Expired,
}

/// What decided, and what of it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Because<'s> {
    /// The address can be read in two ways.
    Malformed,
    /// The connection does not knock, and must: every one, or those of this peer.
    NoKnock(Option<&'s PeerId>),
    Allowed(Found<'s>),
    Blocked(Found<'s>),
    /// The address has a name instead of an IP.
    Name,
    NoMember,
    NotKnownThere,
    Rate(u8, Duration),
    Cap(Cap, u32),
    Nothing,
}

/// Which entry it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found<'s> {
    Peer(&'s PeerId),
    Network(Cidr),
    Rule(&'s Arc<Rule>),
    Set(&'s str),
    /// Of that list, in that network.
    List(&'s str, Cidr),
}

/// What the two long lists say, of who is blocked without conditions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outright<'s> {
    /// Of those that have part in the connection. Where there is one, addresses are not looked up.
    pub(super) peer: Option<&'s PeerId>,
    /// The narrowest range that an address is in.
    pub(super) network: Option<Cidr>,
    /// Whether rules stand at a range around an address.
    pub(super) ruled: bool,
}

/// What the lists say, before membership, rates and caps.
#[derive(Default)]
pub(super) struct Listed<'s> {
    pub(super) allowed: Option<Found<'s>>,
    /// Allowed if what is not known yet turns out right.
    pub(super) perhaps: Option<Found<'s>>,
    pub(super) blocked: Option<Found<'s>>,
    pub(super) member: bool,
    pub(super) known_there: bool,
}

impl<'s> Listed<'s> {
    fn allow(&mut self, found: Found<'s>) {
        self.allowed = self.allowed.or(Some(found));
    }

    fn block(&mut self, found: Found<'s>) {
        self.blocked = self.blocked.or(Some(found));
    }

    fn rules(&mut self, rules: &'s [Arc<Rule>], facts: &Facts<'_>, now: &impl Fn() -> SystemTime) {
        for rule in rules {
            let slot = match (rule.allow, rule.holds(facts)) {
                (true, Holds::Yes) => &mut self.allowed,
                (true, Holds::Unknown) => &mut self.perhaps,
                (false, Holds::Yes) => &mut self.blocked,
                _ => continue,
            };
            if slot.is_none() && !rule.has_expired(now) {
                *slot = Some(Found::Rule(rule));
            }
        }
    }
}

impl Snapshot {
    /// What the two long lists say.
    #[inline]
    pub(super) fn outright<'s>(&self, facts: &Facts<'s>) -> Outright<'s> {
        let mut outright = Outright {
            peer: None,
            network: None,
            ruled: false,
        };
        if !self.blocked.is_empty() {
            let is_blocked = |peer: &&PeerId| Words::of(peer).is_some_and(|words| self.blocked.contains(words));
            let peer = facts.peer.filter(is_blocked);
            outright.peer = peer.or_else(|| facts.named_besides().find(is_blocked));
        }
        if outright.peer.is_none()
            && self.networks.len() > 0
            && let Some(parts) = facts.parts()
        {
            // One by one: an address that goes through an iterator is written and read again.
            if let Some(ip) = parts.ip {
                self.look(ip, &mut outright);
            }
            if parts.target_ip.is_some() || parts.second_ip.is_some() {
                self.look_behind(parts, &mut outright);
            }
        }
        outright
    }

    /// What the list of ranges says of an address.
    #[inline]
    fn look(&self, ip: IpAddr, outright: &mut Outright<'_>) {
        self.look_at(ip, outright);
        if let IpAddr::V6(six) = ip
            && may_embed(six)
        {
            self.look_into(six, outright);
        }
    }

    #[inline]
    fn look_at(&self, ip: IpAddr, outright: &mut Outright<'_>) {
        self.networks.around(ip, |range, entry| {
            if entry.blocked && outright.network.is_none() {
                outright.network = Some(range);
            }
            outright.ruled |= entry.rules.is_some();
        });
    }

    /// What it says of the IPv4 addresses that an IPv6 address leads to.
    #[inline(never)]
    fn look_into(&self, six: Ipv6Addr, outright: &mut Outright<'_>) {
        each_embedded(six, |four| self.look_at(four.into(), outright));
    }

    /// What it says of what stands behind a relay.
    #[inline(never)]
    fn look_behind(&self, parts: &Parts, outright: &mut Outright<'_>) {
        for ip in parts.second_ip.into_iter().chain(parts.target_ip) {
            self.look(ip, outright);
        }
    }

    /// What the lists say of a connection. `now` is asked where an entry that holds may have expired.
    #[inline]
    pub(super) fn listed<'s>(
        &'s self,
        facts: &Facts<'s>,
        outright: Outright<'s>,
        now: &impl Fn() -> SystemTime,
    ) -> Listed<'s> {
        let mut listed = Listed::default();
        let parts = facts.parts();
        if let Some(peer) = outright.peer {
            listed.block(Found::Peer(peer));
        }
        if !self.peers.is_empty() {
            if let Some(peer) = facts.peer {
                self.peer(peer, facts, now, &mut listed);
            }
            // Whom an address names besides, be it the relay or what a relay says, can be blocked and is allowed nothing.
            for peer in facts.named_besides() {
                let mut said = Listed::default();
                self.peer(peer, facts, now, &mut said);
                if let Some(found) = said.blocked {
                    listed.block(found);
                }
            }
        }
        // Only what allows can outrank it.
        if listed.blocked.is_some() && !self.allows {
            return listed;
        }
        // Looked at again only where there is something to name.
        if (outright.network.is_some() || outright.ruled || outright.peer.is_some())
            && let Some(parts) = parts
        {
            for ip in parts.ips() {
                self.networks.around(ip, |range, entry| {
                    if entry.blocked {
                        listed.block(Found::Network(range));
                    }
                    if let Some(rules) = &entry.rules {
                        listed.rules(rules, facts, now);
                    }
                });
            }
        }
        if !self.general.is_empty() {
            listed.rules(&self.general, facts, now);
        }
        if !self.sets.is_empty() {
            self.sets(facts, &mut listed);
        }
        if !self.lists.is_empty()
            && let Some(parts) = parts
        {
            self.lists(parts, &mut listed);
        }
        listed
    }

    /// What the named lists of networks say of an address, as rules about each of their networks
    /// would.
    fn lists<'s>(&'s self, parts: &Parts, listed: &mut Listed<'s>) {
        for (name, named) in &*self.lists {
            let around = |ip| named.list.around(ip).map(|network| Found::List(name, network));
            if named.standing == Standing::Blocked {
                if let Some(found) = parts.ips().find_map(around) {
                    listed.block(found);
                }
                continue;
            }
            let ip = parts.ip.filter(|_| !parts.is_relayed());
            match ip.and_then(around) {
                // What the name stands for is not known yet.
                Some(found) if parts.named => listed.perhaps = listed.perhaps.or(Some(found)),
                Some(found) => listed.allow(found),
                None => {}
            }
        }
    }

    fn peer<'s>(&'s self, peer: &PeerId, facts: &Facts<'_>, now: &impl Fn() -> SystemTime, listed: &mut Listed<'s>) {
        if let Some(rules) = PeerKey::of(peer).and_then(|key| self.peers.get(&key)) {
            listed.rules(rules, facts, now);
        }
    }

    fn sets<'s>(&'s self, facts: &Facts<'_>, listed: &mut Listed<'s>) {
        let key = facts.peer.and_then(PeerKey::of);
        let ip = facts.parts().and_then(source);
        for (name, set) in &*self.sets {
            let has = |key: &PeerKey| set.peers.contains(key);
            if set.standing == Standing::Blocked {
                if key.as_ref().is_some_and(has) || facts.named().filter_map(PeerKey::of).any(|key| has(&key)) {
                    listed.block(Found::Set(name));
                }
                continue;
            }
            if key.as_ref().is_some_and(has) {
                listed.member = true;
                if set.standing == Standing::Allowed {
                    listed.allow(Found::Set(name));
                }
            }
            listed.known_there |= ip.is_some_and(|ip| set.ips.contains(&ip));
        }
    }

    /// What the rules say that count nothing: all but rates and caps. `Err` decides; `Ok` says whether an allow may yet
    /// come, so that only rates and places for attempts remain.
    #[inline]
    pub(super) fn judge<'s>(
        &'s self,
        facts: &Facts<'s>,
        outright: Outright<'s>,
        now: &impl Fn() -> SystemTime,
    ) -> Result<bool, Because<'s>> {
        let parts = facts.parts();
        if parts.is_some_and(|parts| parts.malformed) {
            return Err(Because::Malformed);
        }
        if self.knock_everybody || !self.knock_peers.is_empty() {
            self.knocks(facts)?;
        }
        let listed = self.listed(facts, outright, now);
        if let Some(found) = listed.allowed {
            return Err(Because::Allowed(found));
        }
        // Of a connection that is ready, nothing more will be known: an allow that cannot be told by then is none.
        let ready = matches!(facts.stage, Stage::Upgraded | Stage::Live) && parts.is_some() && facts.peer.is_some();
        if listed.perhaps.is_some() && !ready {
            return Ok(true);
        }
        if let Some(found) = listed.blocked {
            return Err(Because::Blocked(found));
        }
        if self.refuse_names && parts.is_some_and(|parts| parts.named) && facts.stage != Stage::PeerDial {
            return Err(Because::Name);
        }
        if self.admission != Admission::Everyone {
            if facts.peer.is_some() && !listed.member {
                return Err(Because::NoMember);
            }
            let at_known = self.admission == Admission::KnownAddresses && facts.direction == Direction::Inbound;
            // At a later stage a wrapped upgrade may not know the address; the accept stage did.
            if at_known && parts.is_some() && !listed.known_there {
                return Err(Because::NotKnownThere);
            }
        }
        Ok(false)
    }

    /// Whether it knocks, if it has to.
    fn knocks<'s>(&self, facts: &Facts<'s>) -> Result<(), Because<'s>> {
        if facts.is_over(TransportKind::Knock) != Some(false) {
            return Ok(());
        }
        if self.knock_everybody {
            return Err(Because::NoKnock(None));
        }
        let must = |peer: &&PeerId| PeerKey::of(peer).is_some_and(|key| self.knock_peers.contains(&key));
        match facts.peer.filter(must) {
            Some(peer) => Err(Because::NoKnock(Some(peer))),
            None => Ok(()),
        }
    }
}
