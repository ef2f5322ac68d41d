//! A change of the rules, built aside and made visible in one step.

mod expiry;
mod finish;
mod lists;

pub(super) use finish::Finished;

use super::cidr::{Cidr, CidrError};
use super::key::PeerKey;
use super::limits::{Caps, Rate};
use super::line::LONGEST_LINE;
use super::rule::{Rule, Subject};
use super::sets::{Admission, Member, PeerSet, Standing};
use super::snapshot::{List, Snapshot};
use super::warning::Named;
use crate::shown::{Found, Shown, is_obeyed, shown};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::path::PathBuf;
use std::sync::Arc;

/// Most rules about neither a peer nor a network: each is looked at for every connection.
pub(super) const MOST_GENERAL: usize = 256;
/// Most rules about one peer, or about one network, beyond a bare block.
pub(super) const MOST_ABOUT_ONE: usize = 64;
/// Most named sets: each is looked into for every connection.
pub(super) const MOST_SETS: usize = 64;
/// Most rates: each is a bucket to look at for every connection.
pub(super) const MOST_RATES: usize = 16;
/// The longest name of a set, in bytes.
pub(super) const LONGEST_NAME: usize = 64;

/// Why something cannot be a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// No key has this id: nobody could be meant.
    #[error("no key can have the id {0}")]
    NoSuchPeer(PeerId),
    /// There are as many as there may be.
    #[error("more than {at_most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        at_most: usize,
    },
    /// The name of a set or a list is empty, longer than 64 bytes, or has characters other than letters, digits, `.`, `_` and `-`.
    #[error("invalid name {}: expected 1 to 64 letters, digits, `.`, `_` or `-`", Found(.0))]
    Name(String),
    /// Ports from a higher one to a lower one.
    #[error("{first} to {last} holds no port")]
    Ports {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// As a line of a file of rules it would be longer than such a line may be, 4096 bytes.
    #[error("the rule would be a line of {0} bytes, of at most {LONGEST_LINE}")]
    TooLong(usize),
    /// The closure of a change changes, saves or reloads the same rules. They would wait for each
    /// other.
    #[error("a change of the rules cannot begin inside another change of the same rules")]
    InsideChange,
    /// No address that could be written down and read again, or a character of it is one that a
    /// terminal obeys.
    #[error("`{}` is no address of a listener", Shown(.0.to_string()))]
    Listener(Multiaddr),
    /// A list of networks has no members: it is allowed or blocked.
    #[error("a list of networks cannot be `member`: expected `allowed` or `blocked`")]
    Members,
    /// The path of a list's file could not be written down and read again: it is not UTF-8, has a
    /// character that a terminal obeys, as a line break, or a word that begins with `#`.
    #[error("the path {} cannot stand in a file of rules", shown(.0))]
    Path(PathBuf),
    /// Something is no network.
    #[error("invalid network: {0}")]
    Network(CidrError),
}

impl From<CidrError> for RuleError {
    fn from(error: CidrError) -> Self {
        Self::Network(error)
    }
}

/// A change that is being made; see [`Rules::change`](crate::Rules::change). Nobody sees any of it before all of it.
pub struct Change {
    pub(super) next: Snapshot,
    /// Applied at the end, each list of ranges once.
    networks: Vec<(Cidr, Edit)>,
    /// By what the clock says, in seconds.
    now: u64,
    /// Something may be refused now that was not before.
    tightened: bool,
    /// Rates mean other buckets now.
    new_rates: bool,
    /// What has been inserted that will expire.
    expiring: Vec<(u64, Rule)>,
    /// Nothing that was to expire is left of before.
    cleared: bool,
    /// Of the peers that were named.
    named: Named,
}

enum Edit {
    Insert(Arc<Rule>),
    Remove(Arc<Rule>),
    Block,
    Unblock,
}

impl Change {
    /// At the second `now`.
    pub(super) fn of(next: Snapshot, now: u64) -> Self {
        Self {
            next,
            networks: Vec::new(),
            now,
            tightened: false,
            new_rates: false,
            expiring: Vec::new(),
            cleared: false,
            named: Named::default(),
        }
    }

    /// Puts `rule` on its list, in place of the same rule with another expiry or note. One that has
    /// expired already is out of force, as any other: kept, see [`Rule::until`].
    ///
    /// # Errors
    ///
    /// [`RuleError`]; the change can go on without the rule.
    pub fn insert(&mut self, rule: Rule) -> Result<(), RuleError> {
        if let Some((first, last)) = rule.ports.filter(|(first, last)| first > last) {
            return Err(RuleError::Ports { first, last });
        }
        let key = match rule.peer {
            Some(peer) => Some(PeerKey::of(&peer).ok_or(RuleError::NoSuchPeer(peer))?),
            None => None,
        };
        can_be_written(&rule)?;
        if let Some(peer) = &rule.peer {
            self.named.look_at(peer);
        }
        if rule.until.is_some_and(|until| until <= self.now) {
            self.remove(rule.clone());
            self.next.expired.put(Arc::new(rule));
            return Ok(());
        }
        self.put(rule, key)
    }

    /// The same of a rule that is in force, and in order.
    fn put(&mut self, rule: Rule, key: Option<PeerKey>) -> Result<(), RuleError> {
        if rule.is_plain() {
            // In place of one with an expiry, or a note.
            match (key, rule.network) {
                (Some(key), _) => {
                    self.forget_about_peer(key, &rule);
                    self.next.blocked.insert(key);
                }
                (None, Some(network)) => self.networks.push((network, Edit::Block)),
                (None, None) => {}
            }
            self.tightened = true;
            self.next.expired.remove(&Arc::new(rule));
            return Ok(());
        }
        let rule = Arc::new(rule);
        if let Some(key) = key {
            if rule.network.is_none() && same_as_plain(&rule) {
                self.next.blocked.remove(&key);
            }
            let list = self.next.peers.get(&key).cloned().unwrap_or_default();
            let list = with(&list, &rule, "rules about one peer", MOST_ABOUT_ONE)?;
            self.put_about_peer(key, list);
        }
        match rule.network {
            Some(network) => self.networks.push((network, Edit::Insert(Arc::clone(&rule)))),
            None if key.is_none() => {
                self.next.general = with(&self.next.general, &rule, "rules about everybody", MOST_GENERAL)?;
            }
            None => {}
        }
        self.tightened |= !rule.allow;
        if let Some(until) = rule.until {
            self.expiring.push((until, Rule::clone(&rule)));
        }
        self.next.expired.remove(&rule);
        Ok(())
    }

    /// Takes `rule` off its list, whatever its expiry and note there, and out of what has expired.
    /// What is not there is no error.
    pub fn remove(&mut self, rule: Rule) {
        let rule = Arc::new(rule);
        self.next.expired.remove(&rule);
        if let Some(key) = rule.peer_key() {
            self.forget_about_peer(key, &rule);
            if same_as_plain(&rule) {
                self.next.blocked.remove(&key);
            }
        }
        match rule.network {
            Some(network) => {
                if same_as_plain(&rule) {
                    self.networks.push((network, Edit::Unblock));
                }
                self.networks.push((network, Edit::Remove(Arc::clone(&rule))));
            }
            None if rule.peer.is_none() => self.next.general = without(&self.next.general, &rule),
            None => {}
        }
        self.tightened |= rule.allow;
    }

    /// Blocks a peer, an IP or a network: [`Self::insert`] of a [`Rule::block`] that says nothing
    /// else. An IP and the network of that one IP are one rule: `block(10.0.0.1)` is taken back by
    /// `unblock(10.0.0.1/32)`. go-libp2p's gater keeps a set of each.
    ///
    /// # Errors
    ///
    /// [`RuleError::NoSuchPeer`].
    pub fn block(&mut self, what: impl Into<Subject>) -> Result<(), RuleError> {
        self.insert(what.into().blocked())
    }

    /// Takes the block of a peer, an IP or a network away: [`Self::remove`] of the same.
    pub fn unblock(&mut self, what: impl Into<Subject>) {
        self.remove(what.into().blocked());
    }

    /// Makes the set `name` consist of `members`, whatever it was before.
    ///
    /// # Errors
    ///
    /// [`RuleError`]; the set is then as it was.
    pub fn set<M: Into<Member>>(
        &mut self,
        name: &str,
        standing: Standing,
        members: impl IntoIterator<Item = M>,
    ) -> Result<(), RuleError> {
        check_name(name)?;
        if !self.next.sets.contains_key(name) && self.next.sets.len() >= MOST_SETS {
            return Err(RuleError::TooMany {
                what: "sets",
                at_most: MOST_SETS,
            });
        }
        let mut set = PeerSet::new(standing);
        for member in members {
            let Member { peer, ips } = member.into();
            let key = PeerKey::of(&peer).ok_or(RuleError::NoSuchPeer(peer))?;
            self.named.look_at(&peer);
            set.add(key, &ips);
        }
        Arc::make_mut(&mut self.next.sets).insert(name.to_owned(), Arc::new(set));
        self.tightened = true;
        Ok(())
    }

    /// Dissolves the set `name`. What is not there is no error.
    pub fn remove_set(&mut self, name: &str) {
        if self.next.sets.contains_key(name) {
            Arc::make_mut(&mut self.next.sets).remove(name);
            self.tightened = true;
        }
    }

    /// Lets nobody in or out but over the knock transport, or no longer so. Nothing outranks this, the allow list
    /// included.
    pub fn require_knock_of_everybody(&mut self, require: bool) {
        self.next.knock_everybody = require;
        self.tightened |= require;
    }

    /// The same of one peer: for those who are known to knock, so that nobody can talk them down.
    ///
    /// # Errors
    ///
    /// [`RuleError::NoSuchPeer`].
    pub fn require_knock(&mut self, peer: PeerId, require: bool) -> Result<(), RuleError> {
        let key = PeerKey::of(&peer).ok_or(RuleError::NoSuchPeer(peer))?;
        if require {
            self.named.look_at(&peer);
        }
        match require {
            true => _ = self.next.knock_peers.insert(key, ()),
            false => _ = self.next.knock_peers.remove(&key),
        }
        self.tightened |= require;
        Ok(())
    }

    /// Refuses addresses that have a name instead of an IP, where the gate stands outside DNS and so does not see what
    /// the name stands for. By default they pass, and rules about networks do not see them.
    pub const fn refuse_names(&mut self, refuse: bool) {
        self.next.refuse_names = refuse;
        self.tightened |= refuse;
    }

    /// Whom to let in that no list names.
    pub fn admit(&mut self, admission: Admission) {
        self.tightened |= admission > self.next.admission;
        self.next.admission = admission;
    }

    /// Sets the ceilings, all of them.
    pub fn caps(&mut self, caps: Caps) {
        self.next.caps = (caps != Caps::default()).then(|| Arc::new(caps));
    }

    /// Sets the rates, all of them. Each connection is to satisfy every one of its direction. All buckets are full then.
    ///
    /// # Errors
    ///
    /// [`RuleError::TooMany`] beyond 16.
    pub fn rates(&mut self, rates: impl IntoIterator<Item = Rate>) -> Result<(), RuleError> {
        let mut rates: Vec<Rate> = rates.into_iter().collect();
        check_rates(&rates)?;
        // So that the one who gives the reason is the narrowest.
        rates.sort_by_key(|rate| std::cmp::Reverse((rate.prefixes.v4, rate.prefixes.v6)));
        self.next.rates = Arc::new(rates);
        self.new_rates = true;
        Ok(())
    }

    /// Removes everything, what has expired too: what follows in the same change is all there will
    /// be.
    pub fn clear(&mut self) {
        self.next = Snapshot::default();
        self.networks.clear();
        self.expiring.clear();
        self.cleared = true;
        self.tightened = true;
        self.new_rates = true;
    }

    fn forget_about_peer(&mut self, key: PeerKey, rule: &Rule) {
        if let Some(list) = self.next.peers.get(&key) {
            let list = without(list, rule);
            self.put_about_peer(key, list);
        }
    }

    fn put_about_peer(&mut self, key: PeerKey, list: List) {
        self.next.allowing += allowing(&list);
        let old = match list.is_empty() {
            true => self.next.peers.remove(&key),
            false => self.next.peers.insert(key, list),
        };
        self.next.allowing -= old.as_ref().map_or(0, allowing);
    }
}

/// Whether a set or a list can have this name.
fn check_name(name: &str) -> Result<(), RuleError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    match name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(allowed) {
        true => Err(RuleError::Name(name.to_owned())),
        false => Ok(()),
    }
}

/// Whether there can be as many.
pub(super) fn check_rates(rates: &[Rate]) -> Result<(), RuleError> {
    match rates.len() > MOST_RATES {
        true => Err(RuleError::TooMany {
            what: "rates",
            at_most: MOST_RATES,
        }),
        false => Ok(()),
    }
}

/// Whether a file of rules could be read that has the rule in it.
fn can_be_written(rule: &Rule) -> Result<(), RuleError> {
    if let Some(listener) = &rule.listener {
        let text = listener.to_string();
        let is_word = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || is_obeyed(c));
        if !is_word || text.parse::<Multiaddr>().ok().as_ref() != Some(listener) {
            return Err(RuleError::Listener(listener.clone()));
        }
    }
    // Everything else is short.
    if rule.listener.is_some() || rule.note.is_some() {
        let bytes = rule.to_string().len();
        if bytes > LONGEST_LINE {
            return Err(RuleError::TooLong(bytes));
        }
    }
    Ok(())
}

fn allowing(list: &List) -> usize {
    list.iter().filter(|rule| rule.allow).count()
}

/// Whether it is a bare block but for its expiry and note.
fn same_as_plain(rule: &Rule) -> bool {
    match (rule.peer, rule.network) {
        (Some(peer), None) => rule.same(&Rule::block().peer(peer)),
        (None, Some(network)) => rule.same(&Rule::block().network(network)),
        _ => false,
    }
}

fn with(list: &List, rule: &Arc<Rule>, what: &'static str, at_most: usize) -> Result<List, RuleError> {
    let mut rules = Vec::clone(list);
    match rules.iter().position(|other| other.same(rule)) {
        Some(at) => rules[at] = Arc::clone(rule),
        None if rules.len() >= at_most => return Err(RuleError::TooMany { what, at_most }),
        None => rules.push(Arc::clone(rule)),
    }
    Ok(Arc::new(rules))
}

fn without(list: &List, rule: &Rule) -> List {
    match list.iter().any(|other| other.same(rule)) {
        true => Arc::new(list.iter().filter(|other| !other.same(rule)).cloned().collect()),
        false => Arc::clone(list),
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change").finish_non_exhaustive()
    }
}
