//! Whatever is done in whatever order, the manager is what a naive one is: one list, searched from end to end, tags that tick
//! every second, and a sort.
//!
//! Ten thousand cases; more with `CONNMGR_MODEL_CASES=1000000 cargo test -p libp2p-connmgr --release model`.

use super::*;
use crate::{Bump, Decay, DecayingTag, TrimTarget};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const PEERS: usize = 6;
const TAGS: [&str; 3] = ["a", "b", "a tag whose name is longer than fits inline"];
const EARLY_FOR: u64 = 60;

#[derive(Debug, Clone)]
enum Op {
    Tag(usize, usize, i64),
    Untag(usize, usize),
    Upsert(usize, usize, i64),
    Protect(usize, usize),
    Unprotect(usize, usize),
    Guard(usize),
    Unguard(usize),
    Bump(usize, usize, i64),
    Remove(usize, usize),
    Connect(usize, bool),
    Disconnect(usize),
    Trim,
    ForceTrim,
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let (peer, tag) = (0..PEERS, 0..TAGS.len());
    let value = prop_oneof![5 => -20_i64..20, 1 => any::<i64>()];
    prop_oneof![
        4 => (peer.clone(), tag.clone(), value.clone()).prop_map(|(p, t, v)| Op::Tag(p, t, v)),
        1 => (peer.clone(), tag.clone()).prop_map(|(p, t)| Op::Untag(p, t)),
        2 => (peer.clone(), tag.clone(), -5_i64..5).prop_map(|(p, t, v)| Op::Upsert(p, t, v)),
        1 => (peer.clone(), tag.clone()).prop_map(|(p, t)| Op::Protect(p, t)),
        2 => (peer.clone(), tag).prop_map(|(p, t)| Op::Unprotect(p, t)),
        1 => peer.clone().prop_map(Op::Guard),
        1 => peer.clone().prop_map(Op::Unguard),
        2 => (peer.clone(), 0..2_usize, value).prop_map(|(p, t, v)| Op::Bump(p, t, v)),
        1 => (peer.clone(), 0..2_usize).prop_map(|(p, t)| Op::Remove(p, t)),
        8 => (peer.clone(), any::<bool>()).prop_map(|(p, dialled)| Op::Connect(p, dialled)),
        3 => peer.prop_map(Op::Disconnect),
        2 => Just(Op::Trim),
        1 => Just(Op::ForceTrim),
        3 => prop_oneof![1_u64..15, 50_u64..70].prop_map(Op::Advance),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    low: usize,
    grace: u64,
    retention: Option<u64>,
    total: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    let retention = prop_oneof![Just(None), Just(Some(0)), Just(Some(30))];
    (1_usize..6, prop_oneof![Just(0), Just(10)], retention, any::<bool>()).prop_map(|(low, grace, retention, total)| {
        Setting {
            low,
            grace,
            retention,
            total,
        }
    })
}

/// One peer, as a naive manager knows it. Times are seconds.
#[derive(Debug, Clone, Default)]
struct Known {
    first_seen: u64,
    /// When the last connection closed.
    left: Option<u64>,
    tags: BTreeMap<&'static str, i64>,
    decaying: BTreeMap<usize, i64>,
    protections: BTreeSet<&'static str>,
    guards: usize,
    /// Serial number, and whether we dialled.
    connections: Vec<(usize, bool)>,
    absent: Absent,
}

/// Since when a peer without connections is only remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Absent {
    #[default]
    No,
    Early(u64),
    Gone(u64),
}

impl Known {
    fn kept(&self) -> bool {
        self.guards > 0 || !self.protections.is_empty()
    }

    fn value(&self) -> i64 {
        let tags = self.tags.values().chain(self.decaying.values());
        let sum: i128 = tags.map(|value| i128::from(*value)).sum();
        i64::try_from(sum.clamp(i64::MIN.into(), i64::MAX.into())).unwrap()
    }

    fn tagged(&self) -> bool {
        !self.tags.is_empty() || !self.decaying.is_empty()
    }
}

/// The original's way: tags tick, every round, for every peer.
#[derive(Debug, Clone, Copy)]
struct Ticking {
    interval: u64,
    due: u64,
}

struct Naive {
    setting: Setting,
    now: u64,
    peers: HashMap<usize, Known>,
    tags: [Ticking; 2],
}

impl Naive {
    fn expire(&mut self) {
        let (now, gone_for) = (self.now, self.gone_for());
        self.peers.retain(|_, known| match known.absent {
            Absent::No => true,
            Absent::Early(since) => now < since + EARLY_FOR,
            Absent::Gone(since) => now < since + gone_for,
        });
    }

    fn gone_for(&self) -> u64 {
        self.setting.retention.unwrap_or(0).max(self.setting.grace)
    }

    fn tagged(&mut self, peer: usize) -> &mut Known {
        self.expire();
        let (now, keep) = (self.now, self.setting.retention.is_some());
        let known = self.peers.entry(peer).or_insert_with(|| Known {
            first_seen: now,
            absent: Absent::Early(now),
            ..Known::default()
        });
        if matches!(known.absent, Absent::Gone(_)) && !keep {
            known.absent = Absent::Early(now);
        }
        known
    }

    fn kept(&mut self, peer: usize) -> &mut Known {
        self.expire();
        let now = self.now;
        let known = self.peers.entry(peer).or_insert_with(|| Known {
            first_seen: now,
            ..Known::default()
        });
        known.absent = Absent::No;
        known
    }

    /// What becomes of a peer that nothing keeps any more.
    fn release(&mut self, peer: usize) {
        let (now, gone_for) = (self.now, self.gone_for());
        let keep_tags = self.setting.retention.is_some();
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if known.kept() || !known.connections.is_empty() || known.absent != Absent::No {
            return;
        }
        known.absent = match known.left {
            Some(_) if known.tagged() && keep_tags => Absent::Gone(now),
            _ if known.tagged() => Absent::Early(now),
            Some(left) if now < left + gone_for => Absent::Gone(left),
            _ => {
                self.peers.remove(&peer);
                return;
            }
        };
    }

    fn connect(&mut self, peer: usize, serial: usize, dialled: bool) {
        self.expire();
        let (now, gone_for) = (self.now, self.gone_for());
        let known = self.peers.entry(peer).or_default();
        if known.connections.is_empty() {
            if known.left.is_none_or(|left| now >= left + gone_for) {
                known.first_seen = now;
            }
            known.left = None;
        }
        known.absent = Absent::No;
        known.connections.push((serial, dialled));
    }

    fn disconnect(&mut self, peer: usize, serial: usize) {
        let now = self.now;
        let keep_tags = self.setting.retention.is_some();
        let known = self.peers.get_mut(&peer).unwrap();
        known.connections.retain(|(known, _)| *known != serial);
        if known.connections.is_empty() {
            known.left = Some(now);
            if !keep_tags {
                known.tags.clear();
                known.decaying.clear();
            }
            if !known.kept() {
                known.absent = Absent::Gone(now);
            }
        }
    }

    fn open(&self) -> usize {
        self.peers.values().map(|known| known.connections.len()).sum()
    }

    /// Whom a trim closes, in that order.
    fn trim(&mut self, forced: bool) -> Vec<usize> {
        self.expire();
        let Setting { low, grace, total, .. } = self.setting;
        let open = self.open();
        let mut candidates: Vec<(usize, &Known)> = self
            .peers
            .iter()
            .filter(|(_, known)| !known.connections.is_empty())
            .filter(|(_, known)| forced || (!known.kept() && self.now - known.first_seen >= grace))
            .map(|(peer, known)| (*peer, known))
            .collect();
        let connections: usize = candidates.iter().map(|(_, known)| known.connections.len()).sum();
        if open <= low {
            return Vec::new();
        }
        let mut left = if total || forced {
            (open - low).min(connections)
        } else {
            connections.saturating_sub(low)
        };
        if left == 0 {
            return Vec::new();
        }
        candidates.sort_by_key(|(_, known)| {
            let dialled_only = known.connections.iter().all(|(_, dialled)| *dialled);
            let latest = known.connections.iter().map(|(serial, _)| *serial).max();
            let young = std::cmp::Reverse((known.first_seen, latest));
            (known.kept(), known.value(), dialled_only, young)
        });
        let mut victims = Vec::new();
        for (peer, known) in candidates {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(known.connections.len());
            victims.push(peer);
        }
        // Early records past grace go with the first trim that closes anything.
        let now = self.now;
        self.peers
            .retain(|_, known| !matches!(known.absent, Absent::Early(since) if since + grace <= now));
        for peer in &victims {
            for (serial, _) in self.peers[peer].connections.clone() {
                self.disconnect(*peer, serial);
            }
        }
        self.expire();
        victims
    }

    fn advance(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            self.expire();
            for (at, tag) in self.tags.iter_mut().enumerate() {
                if tag.due > self.now {
                    continue;
                }
                tag.due += tag.interval;
                for known in self.peers.values_mut() {
                    let Some(value) = known.decaying.get_mut(&at) else {
                        continue;
                    };
                    *value = decay(at, *value);
                    if *value <= 0 {
                        known.decaying.remove(&at);
                    }
                }
            }
        }
    }
}

/// The first loses 3 every 7 s, the second half of what it has every 10 s.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "values of the model are small"
)]
fn decay(tag: usize, value: i64) -> i64 {
    if tag == 0 {
        value.saturating_sub(3)
    } else {
        (value as f64 * 0.5).floor() as i64
    }
}

struct Real {
    node: Node,
    start: Instant,
    peers: Vec<PeerId>,
    tags: [DecayingTag; 2],
    guards: Vec<Vec<crate::InUse>>,
}

impl Real {
    fn new(setting: Setting) -> Self {
        let mut config = quiet(setting.low, 1_000, Duration::from_secs(setting.grace))
            .unwrap()
            .with_decay_resolution(SECOND)
            .with_early_tags(Duration::from_secs(EARLY_FOR), 1_000);
        if let Some(retention) = setting.retention {
            config = config.with_retention(Duration::from_secs(retention), 1_000);
        }
        if setting.total {
            config = config.with_trim_target(TrimTarget::Total);
        }
        let node = Node::new(config);
        let register = |name, interval, decay, bump| {
            let interval = Duration::from_secs(interval);
            node.manager.register_decaying_tag(name, interval, decay, bump).unwrap()
        };
        let tags = [
            register("fixed", 7, Decay::fixed(3), Bump::sum_unbounded()),
            register("linear", 10, Decay::linear(0.5), Bump::overwrite()),
        ];
        Self {
            start: node.clock.now(),
            node,
            peers: (0..PEERS).map(|_| PeerId::random()).collect(),
            tags,
            guards: vec![Vec::new(); PEERS],
        }
    }
}

fn apply(op: &Op, real: &mut Real, naive: &mut Naive) {
    let manager = real.node.manager.clone();
    let id = |peer: usize| real.peers[peer];
    match *op {
        Op::Tag(peer, tag, value) => {
            manager.tag_peer(&id(peer), TAGS[tag], value);
            naive.tagged(peer).tags.insert(TAGS[tag], value);
        }
        Op::Untag(peer, tag) => {
            manager.untag_peer(&id(peer), TAGS[tag]);
            naive.expire();
            naive.peers.get_mut(&peer).map(|known| known.tags.remove(TAGS[tag]));
        }
        Op::Upsert(peer, tag, by) => {
            manager.upsert_tag(&id(peer), TAGS[tag], &mut |old| old.saturating_add(by));
            let value = naive.tagged(peer).tags.entry(TAGS[tag]).or_default();
            *value = value.saturating_add(by);
        }
        Op::Protect(peer, tag) => {
            manager.protect(&id(peer), TAGS[tag]);
            naive.kept(peer).protections.insert(TAGS[tag]);
        }
        Op::Unprotect(peer, tag) => {
            let still = manager.unprotect(&id(peer), TAGS[tag]);
            let before = naive.peers.get(&peer).is_some_and(Known::kept);
            if let Some(known) = naive.peers.get_mut(&peer) {
                known.protections.remove(TAGS[tag]);
            }
            let now = naive
                .peers
                .get(&peer)
                .is_some_and(|known| !known.protections.is_empty());
            assert_eq!(still, now);
            if before {
                naive.release(peer);
            }
        }
        Op::Guard(peer) => {
            let guard = manager.in_use(&id(peer));
            real.guards[peer].push(guard);
            naive.kept(peer).guards += 1;
        }
        Op::Unguard(peer) => {
            if real.guards[peer].pop().is_some() {
                naive.peers.get_mut(&peer).unwrap().guards -= 1;
                naive.release(peer);
            }
        }
        Op::Bump(peer, tag, delta) => {
            real.tags[tag].bump(&id(peer), delta).unwrap();
            let value = naive.tagged(peer).decaying.entry(tag).or_default();
            *value = if tag == 0 { value.saturating_add(delta) } else { delta };
        }
        Op::Remove(peer, tag) => {
            real.tags[tag].remove(&id(peer)).unwrap();
            naive.peers.get_mut(&peer).map(|known| known.decaying.remove(&tag));
        }
        Op::Connect(peer, dialled) => {
            let serial = real.node.next;
            let peer_id = id(peer);
            real.node
                .connect_as(peer_id, if dialled { outbound() } else { inbound() })
                .unwrap();
            naive.connect(peer, serial, dialled);
        }
        Op::Disconnect(peer) => {
            if let Some(connection) = real.node.connections_of(id(peer)).first().copied() {
                real.node.disconnect(connection);
                let serial = naive.peers[&peer].connections[0].0;
                naive.disconnect(peer, serial);
            }
        }
        Op::Trim | Op::ForceTrim => {
            let forced = matches!(op, Op::ForceTrim);
            real.node.events.clear();
            let trimmed = if forced {
                real.node.force_trim()
            } else {
                real.node.trim()
            };
            let before = naive.open();
            let victims: Vec<_> = naive.trim(forced).into_iter().map(id).collect();
            let closed: Vec<_> = real.node.trimmed().into_iter().map(|(peer, _)| peer).collect();
            assert_eq!(closed, victims);
            assert_eq!(
                trimmed,
                Trimmed {
                    closed: before - naive.open(),
                    stuck: 0
                }
            );
        }
        Op::Advance(seconds) => {
            // A little more: a tag that is set in the instant of a trim counts as a nanosecond younger.
            real.node
                .advance(Duration::from_secs(seconds) + Duration::from_micros(1));
            naive.advance(seconds);
        }
    }
}

fn compare(real: &Real, naive: &mut Naive) {
    naive.expire();
    for (at, peer) in real.peers.iter().enumerate() {
        let known = naive.peers.get(&at).cloned().unwrap_or_default();
        let visible = !known.connections.is_empty() || known.tagged();
        let info = real.node.manager.tag_info(peer);
        assert_eq!(info.is_some(), visible, "{known:?}");
        assert_eq!(real.node.manager.is_protected(peer, ""), !known.protections.is_empty());
        for tag in TAGS {
            assert_eq!(
                real.node.manager.is_protected(peer, tag),
                known.protections.contains(tag)
            );
        }
        let Some(info) = info else { continue };
        let seen = info.first_seen.unwrap() - real.start;
        assert_eq!(seen.as_secs(), known.first_seen);
        assert_eq!(info.value, known.value(), "{known:?}");
        let tags: BTreeMap<_, _> = known
            .tags
            .iter()
            .map(|(tag, value)| ((*tag).to_owned(), *value))
            .collect();
        assert_eq!(info.tags, tags);
        let name = |at: usize| ["fixed", "linear"][at].to_owned();
        let decaying: BTreeMap<_, _> = known.decaying.iter().map(|(at, value)| (name(*at), *value)).collect();
        assert_eq!(info.decaying, decaying);
        let directions: Vec<_> = info.connections.iter().map(|connection| connection.outbound).collect();
        assert_eq!(
            directions,
            known
                .connections
                .iter()
                .map(|(_, dialled)| *dialled)
                .collect::<Vec<_>>()
        );
    }
    let counts = real.node.manager.counts();
    let class = |wanted: fn(&Naive, &Known) -> bool| {
        let all = naive.peers.values().filter(|known| !known.connections.is_empty());
        all.filter(|known| wanted(naive, known))
            .map(|known| known.connections.len())
            .sum::<usize>()
    };
    let in_grace = |naive: &Naive, known: &Known| !known.kept() && naive.now - known.first_seen < naive.setting.grace;
    assert_eq!(counts.protected.connections, class(|_, known| known.kept()));
    assert_eq!(counts.in_grace.connections, class(in_grace));
    assert_eq!(counts.connections(), naive.open());
    let early = naive
        .peers
        .values()
        .filter(|known| matches!(known.absent, Absent::Early(_)));
    assert_eq!(counts.early, early.count());
    let gone = naive
        .peers
        .values()
        .filter(|known| matches!(known.absent, Absent::Gone(_)));
    assert_eq!(counts.gone, gone.count());
    assert_eq!(real.node.records(), naive.peers.len());
}

fn cases() -> u32 {
    let wanted = std::env::var("CONNMGR_MODEL_CASES").ok();
    wanted.and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]
    #[test]
    fn the_manager_is_what_a_naive_one_is(setting in setting(), ops in proptest::collection::vec(op(), 1..40)) {
        let mut real = Real::new(setting);
        let tags = [7, 10].map(|interval| Ticking { interval, due: interval });
        let mut naive = Naive { setting, now: 0, peers: HashMap::new(), tags };
        for op in &ops {
            apply(op, &mut real, &mut naive);
            compare(&real, &mut naive);
        }
    }
}
