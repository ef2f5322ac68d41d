//! Whatever is done in whatever order, the manager is what a naive one is: see [`naive`].
//!
//! Ten thousand cases; more with `CONNMGR_MODEL_CASES=1000000 cargo test -p libp2p-connmgr --release model`.

use super::naive::{Absent, DECAYING, INTERVALS, Known, Link, Naive, Op, Setting, TAGS, Time, Ways};
use super::*;
use crate::{Bump, BumpError, Decay, DecayingTag, TrimTarget};
use proptest::prelude::*;

const PEERS: usize = 6;
/// What passes between two operations at the hard limit, so that each newcomer has a look of its
/// own at the others.
const APART: Time = 100;

fn op() -> impl Strategy<Value = Op> {
    let (peer, tag) = (0..PEERS, 0..TAGS.len());
    let value = prop_oneof![5 => -20_i64..20, 1 => any::<i64>()];
    let streams = prop_oneof![2 => Just(None), 3 => (0_u32..4).prop_map(Some)];
    let link = (any::<bool>(), streams).prop_map(|(dialled, streams)| Link { dialled, streams });
    prop_oneof![
        4 => (peer.clone(), tag.clone(), value.clone()).prop_map(|(p, t, v)| Op::Tag(p, t, v)),
        1 => (peer.clone(), tag.clone()).prop_map(|(p, t)| Op::Untag(p, t)),
        2 => (peer.clone(), tag.clone(), -5_i64..5).prop_map(|(p, t, v)| Op::Upsert(p, t, v)),
        2 => (peer.clone(), tag.clone()).prop_map(|(p, t)| Op::Protect(p, t)),
        3 => (peer.clone(), tag).prop_map(|(p, t)| Op::Unprotect(p, t)),
        1 => peer.clone().prop_map(Op::Guard),
        1 => peer.clone().prop_map(Op::Unguard),
        2 => (peer.clone(), 0..2_usize, value).prop_map(|(p, t, v)| Op::Bump(p, t, v)),
        1 => (peer.clone(), 0..2_usize).prop_map(|(p, t)| Op::Remove(p, t)),
        1 => (0..2_usize).prop_map(Op::Reset),
        10 => (peer.clone(), link).prop_map(|(p, link)| Op::Connect(p, link)),
        3 => peer.clone().prop_map(Op::Disconnect),
        1 => peer.clone().prop_map(Op::BeginDial),
        1 => peer.prop_map(Op::EndDial),
        2 => (1_usize..5).prop_map(Op::Release),
        2 => Just(Op::Trim),
        1 => Just(Op::ForceTrim),
        4 => prop_oneof![2 => 1_u64..15, 1 => 50_u64..70].prop_map(Op::Wait),
        1 => prop_oneof![1_u64..15, 50_u64..70, 3_000_u64..4_000].prop_map(Op::Jump),
        1 => (1_u64..20).prop_map(Op::Back),
    ]
}

prop_compose! {
    fn setting()(
        low in 1_usize..6,
        above in 0_usize..5,
        grace in prop_oneof![Just(0), Just(10), Just(20)],
        silence in 1_u64..12,
        close_deadline in prop_oneof![Just(0), Just(5), Just(10)],
        retention in prop_oneof![2 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(30))],
        total in any::<bool>(),
        hard_limit in prop_oneof![2 => Just(None), 1 => (0_usize..12).prop_map(Some)],
        slow in any::<bool>(),
    ) -> Setting {
        let high = low + above;
        Setting {
            low,
            high,
            grace: grace * naive::SECOND,
            silence: silence * naive::SECOND,
            close_deadline: close_deadline * naive::SECOND,
            early_for: 60 * naive::SECOND,
            retention: retention.map(|seconds: u64| seconds * naive::SECOND),
            total,
            hard_limit: hard_limit.map(|above| high + above),
            slow,
            resolution: naive::SECOND,
            ways: Ways::default(),
        }
    }
}

struct Real {
    node: Node,
    start: Instant,
    peers: Vec<PeerId>,
    tags: [DecayingTag; 2],
    guards: Vec<Vec<crate::InUse>>,
    dials: Vec<Vec<ConnectionId>>,
    asked: Vec<(Trimming, Option<Trimmed>)>,
    next_dial: usize,
}

fn register(manager: &Manager, tag: usize) -> DecayingTag {
    let (decay, bump) = match tag {
        0 => (Decay::fixed(3), Bump::sum_unbounded()),
        _ => (Decay::linear(0.5), Bump::overwrite()),
    };
    let interval = Duration::from_micros(INTERVALS[tag]);
    manager
        .register_decaying_tag(DECAYING[tag], interval, decay, bump)
        .unwrap()
}

impl Real {
    fn new(setting: Setting) -> Self {
        let mut config = Config::new(setting.low, setting.high)
            .unwrap()
            .with_grace_period(Duration::from_micros(setting.grace))
            .with_silence_period(Duration::from_micros(setting.silence))
            .unwrap()
            .with_close_deadline(Duration::from_micros(setting.close_deadline))
            .with_decay_resolution(SECOND)
            .with_early_tags(Duration::from_micros(setting.early_for), 1_000);
        if let Some(retention) = setting.retention {
            config = config.with_retention(Duration::from_micros(retention), 1_000);
        }
        if setting.total {
            config = config.with_trim_target(TrimTarget::Total);
        }
        if let Some(limit) = setting.hard_limit {
            config = config.with_hard_limit(limit).unwrap();
        }
        // Activity is counted in full seconds of the transport's clock, which begins about now.
        let clock = Clock::new();
        clock.advance(SECOND / 2);
        let own = clock.clone();
        let mut node = Node::of(crate::new(config.with_clock(move || own.now())), clock);
        node.wired = !setting.slow;
        let tags = [0, 1].map(|tag| register(&node.manager, tag));
        Self {
            start: node.clock.now(),
            node,
            peers: (0..PEERS).map(|_| PeerId::random()).collect(),
            tags,
            guards: vec![Vec::new(); PEERS],
            dials: vec![Vec::new(); PEERS],
            asked: Vec::new(),
            next_dial: 1_000_000,
        }
    }

    /// `now` in microseconds: transports take the time from elsewhere.
    fn connect(&mut self, peer: usize, link: Link, now: Time) -> bool {
        let now = self.start + Duration::from_micros(now);
        let (node, peer) = (&mut self.node, self.peers[peer]);
        let mut endpoint = if link.dialled { outbound() } else { inbound() };
        let address: Multiaddr = format!("/ip4/127.0.0.1/udp/{}", node.next + 1).parse().unwrap();
        match &mut endpoint {
            ConnectedPoint::Dialer { address: to, .. } => *to = address.clone(),
            ConnectedPoint::Listener { send_back_addr, .. } => *send_back_addr = address.clone(),
        }
        let counted = link.streams.map(|streams| {
            let registry = node.behaviour.registry();
            let (activity, place) = registry.enter(peer, endpoint.to_endpoint(), address, now);
            for _ in 0..streams {
                activity.opened(crate::count::Opener::Local, now);
            }
            place
        });
        let connected = node.connect_as(peer, endpoint).is_ok();
        drop(counted);
        connected
    }

    /// The oldest of those that were told to close and are still there.
    fn let_close(&mut self, connections: usize) {
        for _ in 0..connections {
            let told = self.node.told.iter().copied();
            let Some(oldest) = told.filter(|id| self.node.connections.contains_key(id)).min() else {
                return;
            };
            self.node.disconnect(oldest);
        }
    }

    fn dial(&mut self, peer: usize) {
        let id = ConnectionId::new_unchecked(self.next_dial);
        self.next_dial += 1;
        self.node
            .behaviour
            .handle_pending_outbound_connection(id, Some(self.peers[peer]), &[], Endpoint::Dialer)
            .unwrap();
        self.dials[peer].push(id);
    }

    fn end_dial(&mut self, peer: usize) {
        let Some(connection_id) = self.dials[peer].pop() else {
            return;
        };
        self.node
            .behaviour
            .on_swarm_event(FromSwarm::DialFailure(libp2p_swarm::DialFailure {
                peer_id: Some(self.peers[peer]),
                error: &libp2p_swarm::DialError::Aborted,
                connection_id,
            }));
        self.node.run();
    }
}

fn apply(op: Op, real: &mut Real, naive: &mut Naive) {
    let manager = real.node.manager.clone();
    let id = |peer: usize| real.peers[peer];
    let acts = !naive.is_over();
    match op {
        Op::Tag(peer, tag, value) => {
            manager.tag_peer(&id(peer), TAGS[tag], value);
            acts.then(|| naive.tag(peer, tag, value));
        }
        Op::Untag(peer, tag) => {
            manager.untag_peer(&id(peer), TAGS[tag]);
            acts.then(|| naive.untag(peer, tag));
        }
        Op::Upsert(peer, tag, by) => {
            manager.upsert_tag(&id(peer), TAGS[tag], |old| old.saturating_add(by));
            acts.then(|| naive.upsert(peer, tag, by));
        }
        Op::Protect(peer, tag) => {
            manager.protect(&id(peer), TAGS[tag]);
            acts.then(|| naive.protect(peer, tag));
        }
        Op::Unprotect(peer, tag) => {
            let still = manager.unprotect(&id(peer), TAGS[tag]);
            if acts {
                assert_eq!(still, naive.unprotect(peer, tag));
            }
        }
        Op::Guard(peer) => {
            let guard = manager.in_use(&id(peer));
            real.guards[peer].push(guard);
            naive.guard(peer);
        }
        Op::Unguard(peer) => {
            if real.guards[peer].pop().is_some() {
                naive.unguard(peer);
            }
        }
        Op::Bump(peer, tag, delta) => {
            let bumped = real.tags[tag].bump(&id(peer), delta);
            assert_eq!(bumped, if acts { Ok(()) } else { Err(BumpError::Closed) });
            acts.then(|| naive.bump(peer, tag, delta));
        }
        Op::Remove(peer, tag) => {
            let removed = real.tags[tag].remove(&id(peer));
            assert_eq!(removed.is_ok(), acts);
            acts.then(|| naive.remove(peer, tag));
        }
        Op::Reset(tag) => {
            real.tags[tag].close();
            if acts {
                real.tags[tag] = register(&manager, tag);
                naive.reset(tag);
            }
        }
        Op::Connect(peer, link) => {
            let connected = real.connect(peer, link, naive.now);
            assert_eq!(connected, naive.connect(peer, link));
        }
        Op::Disconnect(peer) => {
            if let Some(connection) = real.node.connections_of(id(peer)).first().copied() {
                real.node.disconnect(connection);
            }
            naive.disconnect(peer);
        }
        Op::BeginDial(peer) => {
            real.dial(peer);
            naive.begin_dial(peer);
        }
        Op::EndDial(peer) => {
            real.end_dial(peer);
            naive.end_dial(peer);
        }
        Op::Release(connections) => {
            real.let_close(connections);
            naive.let_close(connections).unwrap();
        }
        Op::Trim | Op::ForceTrim => {
            let forced = op == Op::ForceTrim;
            let trimming = if forced {
                manager.force_trim()
            } else {
                manager.trim_open_conns()
            };
            real.asked.push((trimming, None));
            naive.trim(forced).unwrap();
        }
        Op::Wait(seconds) => {
            for _ in 0..seconds {
                let step = naive.to_next_second();
                real.node.advance(Duration::from_micros(step));
                naive.pass(step);
                naive.poll().unwrap();
            }
        }
        Op::Jump(seconds) => {
            // To a moment at which the background would look anyway: it leaves those out at which
            // it finds no candidate.
            let step = naive.to_tick_after(seconds);
            real.node.advance(Duration::from_micros(step));
            naive.pass(step);
            naive.poll().unwrap();
        }
        // At the hard limit each newcomer takes a moment, and time has to go on.
        Op::Back(_) if naive.setting.hard_limit.is_some() => {}
        Op::Back(seconds) => {
            // The latest time that the clock has told is one that it was asked for.
            let _ = manager.counts();
            real.node
                .clock
                .set(real.node.clock.now() - Duration::from_secs(seconds));
            naive.back(seconds);
        }
        Op::Close => {
            manager.close();
            naive.close();
        }
    }
    real.node.run();
    naive.poll().unwrap();
}

fn compare(real: &mut Real, naive: &mut Naive) {
    naive.expire();
    let trimmed: Vec<_> = real.node.trimmed();
    real.node.events.clear();
    let expected: Vec<_> = std::mem::take(&mut naive.trims)
        .into_iter()
        .flat_map(|trim| trim.peers.into_iter().map(move |peer| (peer, trim.reason)))
        .map(|(peer, reason)| (real.peers[peer], of(reason)))
        .collect();
    assert_eq!(trimmed, expected);
    for (trimming, outcome) in &mut real.asked {
        if outcome.is_none() {
            *outcome = trimming.now_or_never().map(Result::unwrap);
        }
    }
    let outcomes: Vec<_> = real.asked.iter().map(|(_, outcome)| *outcome).collect();
    let expected: Vec<_> = naive
        .asked
        .iter()
        .map(|outcome| outcome.map(|(closed, stuck)| Trimmed { closed, stuck }))
        .collect();
    assert_eq!(outcomes, expected);
    for (at, peer) in real.peers.iter().enumerate() {
        let known = naive.peers.get(&at).cloned().unwrap_or_default();
        let kept = naive.kept.get(&at).cloned().unwrap_or_default();
        let info = real.node.manager.tag_info(peer);
        assert_eq!(info.is_some(), !known.conns.is_empty() || known.tagged(), "{known:?}");
        assert_eq!(real.node.manager.is_protected(peer, ""), !kept.protections.is_empty());
        for (at, tag) in TAGS.into_iter().enumerate() {
            let protected = real.node.manager.is_protected(peer, tag);
            assert_eq!(protected, kept.protections.contains(&at));
        }
        let Some(info) = info else { continue };
        let seen = info.first_seen.unwrap() - real.start;
        assert_eq!(seen, Duration::from_micros(known.first_seen), "{known:?}");
        assert_eq!(info.value, known.value(), "{known:?}");
        let named = |names: &[&str], tags: &BTreeMap<usize, i64>| -> BTreeMap<String, i64> {
            tags.iter().map(|(at, value)| (names[*at].to_owned(), *value)).collect()
        };
        assert_eq!(info.tags, named(&TAGS, &known.tags));
        assert_eq!(info.decaying, named(&DECAYING, &known.decaying));
        let connections: Vec<_> = info
            .connections
            .iter()
            .map(|connection| (connection.outbound, connection.closing, connection.streams))
            .collect();
        let expected: Vec<_> = known
            .conns
            .iter()
            .map(|conn| (conn.link.dialled, conn.closing != 0, conn.link.streams))
            .collect();
        assert_eq!(connections, expected);
    }
    let counts = real.node.manager.counts();
    let class = |wanted: &dyn Fn(usize, &Known) -> bool| -> usize {
        let all = naive.peers.iter().filter(|(peer, known)| wanted(**peer, known));
        all.map(|(_, known)| known.conns.iter().filter(|conn| conn.closing == 0).count())
            .sum()
    };
    let in_grace =
        |peer: usize, known: &Known| !naive.is_kept(peer) && naive.now < known.first_seen + naive.setting.grace;
    assert_eq!(counts.protected.connections, class(&|peer, _| naive.is_kept(peer)));
    assert_eq!(counts.in_grace.connections, class(&in_grace));
    assert_eq!(counts.connections(), naive.open());
    assert_eq!(counts.closing, naive.established() - naive.open());
    let absent = |wanted: fn(Absent) -> bool| naive.peers.values().filter(|known| wanted(known.absent)).count();
    assert_eq!(counts.early, absent(|absent| matches!(absent, Absent::Early(_))));
    assert_eq!(counts.gone, absent(|absent| matches!(absent, Absent::Gone(_))));
    assert_eq!(real.node.records(), naive.peers.len());
    if let Some(limit) = naive.setting.hard_limit {
        assert!(counts.connections() <= limit);
        assert!(naive.established() <= limit + (limit / 8).max(1));
    }
}

fn of(reason: naive::Reason) -> Reason {
    match reason {
        naive::Reason::HighWatermark => Reason::HighWatermark,
        naive::Reason::OnDemand => Reason::OnDemand,
        naive::Reason::Pressure => Reason::Pressure,
        naive::Reason::HardLimit => Reason::HardLimit,
    }
}

fn cases() -> u32 {
    let wanted = std::env::var("CONNMGR_MODEL_CASES").ok();
    wanted.and_then(|cases| cases.parse().ok()).unwrap_or(4_000)
}

fn play(setting: Setting, ops: &[Op]) {
    let mut real = Real::new(setting);
    let mut naive = Naive::new(setting);
    for op in ops {
        let apart = setting.hard_limit.map_or(0, |_| APART);
        real.node.clock.advance(Duration::from_micros(apart));
        naive.pass(apart);
        apply(*op, &mut real, &mut naive);
        compare(&mut real, &mut naive);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]
    #[test]
    fn the_manager_is_what_a_naive_one_is(
        setting in setting(),
        ops in proptest::collection::vec(op(), 1..60),
        close in prop_oneof![9 => Just(false), 1 => Just(true)],
        after in proptest::collection::vec(op(), 0..10),
    ) {
        let mut all = ops;
        if close {
            all.push(Op::Close);
            all.extend(after);
        }
        play(setting, &all);
    }
}
