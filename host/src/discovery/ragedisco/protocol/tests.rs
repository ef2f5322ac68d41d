use super::*;
use libp2p_identity::Keypair;

const DELTA: Duration = Duration::from_secs(10);
const GROUP: [u8; 32] = [7; 32];

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
}

fn signed(seed: u8, counter: u64, addresses: &[&str]) -> Announcement {
    let keypair = Keypair::ed25519_from_bytes([seed; 32])
        .unwrap()
        .try_into_ed25519()
        .unwrap();
    let addresses = addresses.iter().map(|address| address.as_bytes().to_vec()).collect();
    let sign = |message: &[u8]| Ok::<_, SignError>(keypair.sign(message).try_into().unwrap());
    Announcement::sign(addresses, counter, key_of(&peer(seed)).unwrap(), sign).unwrap()
}

fn node(now: Instant, seed: u8, address: &str) -> Protocol {
    Protocol::new(now, signed(seed, 0, &[address]), DELTA)
}

/// Signs what node 1, which is at `address`, wants signed. Everything else that it wants done.
fn sign(node: &mut Protocol, address: &str) -> Vec<Action> {
    let mut others = Vec::new();
    while let Some(action) = node.poll() {
        match action {
            Action::Sign(counter) => node.on_signed(counter, Ok(signed(1, counter, &[address]))).unwrap(),
            Action::Learnt(..) => {}
            action => others.push(action),
        }
    }
    others
}

fn actions(node: &mut Protocol) -> Vec<Action> {
    std::iter::from_fn(|| node.poll()).collect()
}

fn address(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}/tls").parse().unwrap()
}

fn message(announcement: Announcement) -> Vec<u8> {
    Message::Announcement(announcement).encode()
}

/// What goes to each peer in the reconciliation that is due.
fn reconciled(node: &mut Protocol, now: Instant) -> BTreeMap<PeerId, Vec<PeerId>> {
    actions(node);
    node.on_time(now);
    let mut all = BTreeMap::new();
    for action in actions(node) {
        if let Action::Send(to, bytes) = action {
            let Ok(Message::Reconcile(members)) = Message::decode(&bytes) else {
                panic!()
            };
            let members = members.iter().map(Announcement::peer).collect();
            assert!(all.insert(to, members).is_none(), "one message for each peer");
        }
    }
    all
}

#[test]
fn a_group_of_four_finds_itself_through_one_bootstrapper() {
    let now = Instant::now();
    let mut nodes: BTreeMap<PeerId, Protocol> = (1..=4)
        .map(|seed| (peer(seed), node(now, seed, &format!("127.0.0.1:{seed}"))))
        .collect();
    for node in nodes.values_mut() {
        node.add_group(GROUP, (1..=4).map(peer), [(peer(1), vec![address(1)])])
            .unwrap();
    }
    // A message arrives where the sender knows an address of the receiver, or the receiver one of the sender: one of them dials.
    for round in 0..3 {
        let mut mail = Vec::new();
        for (from, node) in &mut nodes {
            node.on_time(now + DELTA * round);
            mail.extend(actions(node).into_iter().filter_map(|action| match action {
                Action::Send(to, bytes) => Some((*from, to, bytes)),
                _ => None,
            }));
        }
        for (from, to, bytes) in mail {
            if !nodes[&from].find_peer(&to).is_empty() || !nodes[&to].find_peer(&from).is_empty() {
                let rejected = nodes.get_mut(&to).unwrap().on_message(&bytes).unwrap();
                assert!(rejected.is_empty(), "{rejected:?}");
            }
        }
    }
    for (own, node) in &nodes {
        assert_eq!(node.status().discovered_peers, 4);
        assert!(node.status().missing.is_empty());
        for seed in 1..=4 {
            if peer(seed) != *own {
                assert_eq!(node.find_peer(&peer(seed)), [address(seed.into())]);
            }
        }
    }
}

#[test]
fn only_those_who_share_a_group_with_an_oracle_learn_of_it() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    // 1, 2 and 3 with bootstrapper 9; 1 and 4, where 3 is a bootstrapper only; 5 and 6 without us.
    node.add_group([1; 32], [1, 2, 3].map(peer), [(peer(9), vec![address(9)])])
        .unwrap();
    node.add_group([2; 32], [1, 4].map(peer), [(peer(3), vec![])]).unwrap();
    node.add_group([3; 32], [5, 6].map(peer), []).unwrap();
    for seed in 2..=6 {
        let rejected = node.on_message(&message(signed(seed, 1, &["127.0.0.1:1"]))).unwrap();
        assert!(rejected.is_empty());
    }
    let all = reconciled(&mut node, now);
    let of = |seeds: &[u8]| -> Vec<PeerId> {
        let peers: BTreeSet<PeerId> = seeds.iter().map(|seed| peer(*seed)).collect();
        peers.into_iter().collect()
    };
    assert_eq!(all[&peer(2)], of(&[1, 2, 3]), "itself is told as well");
    assert_eq!(all[&peer(3)], of(&[1, 2, 3, 4]));
    assert_eq!(all[&peer(4)], of(&[1, 4]));
    assert_eq!(all[&peer(9)], of(&[1, 2, 3]), "a bootstrapper hears all of its group");
    assert_eq!(all[&peer(5)], of(&[5, 6]));
    assert!(!all.contains_key(&peer(1)), "nothing is sent to ourselves");
    assert!(
        all.values().flatten().all(|announced| *announced != peer(9)),
        "nobody announces a bootstrapper"
    );
}

#[test]
fn nothing_is_sent_before_it_is_due_and_then_once_each_interval() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2].map(peer), []).unwrap();
    assert_eq!(node.next_timeout(), now);
    assert_eq!(reconciled(&mut node, now).len(), 1);
    assert_eq!(node.next_timeout(), now + DELTA);
    assert!(reconciled(&mut node, now + DELTA - Duration::from_nanos(1)).is_empty());
    assert_eq!(reconciled(&mut node, now + DELTA).len(), 1);
    // After a long pause once, not once for each interval that was missed.
    assert_eq!(reconciled(&mut node, now + DELTA * 50).len(), 1);
    assert!(reconciled(&mut node, now + DELTA * 50).is_empty());
}

#[test]
fn an_interval_without_end_does_not_overflow() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.interval = Duration::MAX;
    node.add_group(GROUP, [1, 2].map(peer), []).unwrap();
    assert_eq!(reconciled(&mut node, now).len(), 1, "once, at the beginning");
    assert!(reconciled(&mut node, now + SAVE_INTERVAL * 1000).is_empty());
}

#[test]
fn the_higher_counter_wins_whatever_comes_first() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2].map(peer), []).unwrap();
    let take = |node: &mut Protocol, counter, port: &str| {
        assert!(
            node.on_message(&message(signed(2, counter, &[port])))
                .unwrap()
                .is_empty()
        );
        node.find_peer(&peer(2))
    };
    assert_eq!(take(&mut node, 3, "127.0.0.1:3"), [address(3)]);
    assert_eq!(take(&mut node, 2, "127.0.0.1:2"), [address(3)], "lower");
    assert_eq!(
        take(&mut node, 3, "127.0.0.1:9"),
        [address(3)],
        "equal: the first stays"
    );
    assert_eq!(take(&mut node, 4, "127.0.0.1:4"), [address(4)], "higher");
}

#[test]
fn a_node_that_lost_its_database_outdoes_its_former_self_at_once() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2, 3].map(peer), []).unwrap();
    reconciled(&mut node, now);
    let former = signed(1, 41, &["127.0.0.1:9"]);
    node.on_message(&message(former.clone())).unwrap();
    let sent = sign(&mut node, "127.0.0.1:1");
    let better = message(signed(1, 42, &["127.0.0.1:1"]));
    let expected: BTreeSet<PeerId> = [2, 3].map(peer).into();
    assert_eq!(sent.len(), 2, "{sent:?}");
    for action in sent {
        let Action::Send(to, bytes) = action else {
            panic!("{action:?}")
        };
        assert!(expected.contains(&to) && bytes == better);
    }
    // The former one once more, from another peer, and our own back: nothing happens.
    for again in [message(former), better] {
        assert!(node.on_message(&again).unwrap().is_empty());
        assert!(actions(&mut node).is_empty());
    }
}

#[test]
fn a_former_self_at_the_same_place_is_taken_with_its_counter_and_nobody_is_told() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2].map(peer), []).unwrap();
    actions(&mut node);
    node.on_message(&message(signed(1, 41, &["127.0.0.1:1"]))).unwrap();
    assert!(actions(&mut node).is_empty());
    assert_eq!(node.best[&peer(1)].counter(), 41);
    // With the same counter but from elsewhere it is outdone: two lives with one counter.
    node.on_message(&message(signed(1, 41, &["127.0.0.1:9"]))).unwrap();
    sign(&mut node, "127.0.0.1:1");
    assert_eq!(node.best[&peer(1)].counter(), 42);
}

#[test]
fn while_one_announcement_of_our_own_is_signed_no_lower_one_is_and_the_highest_wins() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2].map(peer), []).unwrap();
    actions(&mut node);
    for counter in [41, 40, 41, 60, 50] {
        node.on_message(&message(signed(1, counter, &["127.0.0.1:9"]))).unwrap();
    }
    assert_eq!(actions(&mut node), [Action::Sign(42), Action::Sign(61)]);
    // One that could not be signed is signed again when there is a reason.
    let failed = Err(SignError::NoIdentity);
    assert!(matches!(node.on_signed(61, failed), Err(Rejected::Sign(_))));
    node.on_message(&message(signed(1, 60, &["127.0.0.1:9"]))).unwrap();
    assert_eq!(actions(&mut node), [Action::Sign(61)]);
    // The answers come in any order.
    node.on_signed(61, Ok(signed(1, 61, &["127.0.0.1:1"]))).unwrap();
    node.on_signed(42, Ok(signed(1, 42, &["127.0.0.1:1"]))).unwrap();
    assert_eq!(node.best[&peer(1)].counter(), 61);
    let told = actions(&mut node);
    assert_eq!(told[0], Action::Learnt(peer(1), 61));
    assert_eq!(told.len(), 2, "the other member is told, once: {told:?}");
}

#[test]
fn w10_the_last_counter_there_is_cannot_be_outdone_and_does_not_start_again_at_zero() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2].map(peer), []).unwrap();
    actions(&mut node);
    let rejected = node
        .on_message(&message(signed(1, u64::MAX, &["127.0.0.1:9"])))
        .unwrap();
    assert!(matches!(rejected[..], [Rejected::Exhausted]), "{rejected:?}");
    assert!(actions(&mut node).is_empty());
    assert_eq!(node.best[&peer(1)].counter(), 0);
}

#[test]
fn w9_addresses_that_are_configured_come_first_and_keep_their_order() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    let configured = [5, 3, 4].map(address).to_vec();
    node.add_group(GROUP, [1, 2].map(peer), [(peer(2), configured)])
        .unwrap();
    node.on_message(&message(signed(2, 1, &["127.0.0.1:6", "127.0.0.1:3"])))
        .unwrap();
    for _ in 0..10 {
        assert_eq!(node.find_peer(&peer(2)), [5, 3, 4, 6].map(address));
    }
    assert!(node.find_peer(&peer(3)).is_empty());
}

#[test]
fn strangers_and_forgeries_are_refused_and_the_rest_of_the_message_is_used() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2, 3].map(peer), [(peer(9), vec![address(9)])])
        .unwrap();
    let mut forged = signed(3, 1, &["127.0.0.1:3"]).encode();
    *forged.last_mut().unwrap() ^= 1;
    let members = vec![
        signed(4, 1, &["127.0.0.1:4"]),
        Announcement::decode(&forged).unwrap(),
        signed(9, 1, &["127.0.0.1:99"]),
        signed(2, 1, &["127.0.0.1:2"]),
    ];
    let rejected = node.on_message(&Message::Reconcile(members).encode()).unwrap();
    assert!(
        matches!(
            rejected[..],
            [
                Rejected::NotAnOracle(_),
                Rejected::Invalid(AnnouncementError::Signature(_)),
                Rejected::NotAnOracle(_)
            ]
        ),
        "{rejected:?}"
    );
    assert_eq!(node.find_peer(&peer(2)), [address(2)]);
    assert!(node.find_peer(&peer(3)).is_empty());
    assert_eq!(node.find_peer(&peer(9)), [address(9)], "only what is configured");
    assert!(node.on_message(b"nonsense").is_err());
}

#[test]
fn a_group_that_goes_takes_along_only_whom_no_other_has() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group([1; 32], [1, 2, 3].map(peer), [(peer(9), vec![address(9)])])
        .unwrap();
    node.add_group([2; 32], [1, 3].map(peer), []).unwrap();
    let opened: BTreeSet<PeerId> = actions(&mut node)
        .into_iter()
        .filter_map(|action| match action {
            Action::Connect(peer) => Some(peer),
            _ => None,
        })
        .collect();
    assert_eq!(opened, [2, 3, 9].map(peer).into(), "each once, and not ourselves");
    for seed in [2, 3] {
        node.on_message(&message(signed(seed, 1, &["127.0.0.1:7"]))).unwrap();
    }
    node.remove_group(&[1; 32]).unwrap();
    let closed = actions(&mut node);
    let expected: BTreeSet<PeerId> = [2, 9].map(peer).into();
    let disconnected = closed.iter().filter_map(|action| match action {
        Action::Disconnect(peer) => Some(*peer),
        _ => None,
    });
    assert_eq!(disconnected.collect::<BTreeSet<_>>(), expected);
    assert!(
        closed.contains(&Action::Store(vec![signed(2, 1, &["127.0.0.1:7"])])),
        "{closed:?}"
    );
    assert!(node.find_peer(&peer(2)).is_empty() && node.find_peer(&peer(9)).is_empty());
    assert_eq!(node.find_peer(&peer(3)), [address(7)], "in the other group as well");

    node.remove_group(&[2; 32]).unwrap();
    assert_eq!(node.remove_group(&[2; 32]), Err(GroupError::Unknown));
    let status = node.status();
    assert_eq!(
        (status.registered_peers, status.discovered_peers, status.bootstrappers),
        (0, 1, 0),
        "we stay"
    );
}

#[test]
fn a_group_that_is_refused_changes_nothing() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, (1..=165).map(peer), []).unwrap();
    actions(&mut node);
    let too_many = node.add_group([8; 32], [1, 166].map(peer), [(peer(9), vec![address(9)])]);
    assert_eq!(too_many, Err(GroupError::TooManyOracles { known: 165, new: 1 }));
    assert_eq!(node.add_group(GROUP, [], []), Err(GroupError::Known));
    let rsa: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
    assert_eq!(
        node.add_group([9; 32], [peer(1), rsa], []),
        Err(GroupError::KeyType(rsa))
    );
    assert!(actions(&mut node).is_empty());
    assert!(node.find_peer(&peer(9)).is_empty());
    assert_eq!(node.status().registered_peers, 165);
    // All of those who are known fit into as many groups as one likes.
    node.add_group([10; 32], (1..=165).map(peer), []).unwrap();
    assert!(
        actions(&mut node).is_empty(),
        "nobody new: nobody to connect to, nothing to load"
    );
}

#[test]
fn what_was_stored_is_checked_like_what_is_received() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2, 3].map(peer), []).unwrap();
    let loads: Vec<Action> = actions(&mut node);
    let members: BTreeSet<PeerId> = [1, 2, 3].map(peer).into();
    assert!(
        loads.contains(&Action::Load(members.into_iter().collect())),
        "{loads:?}"
    );
    let mut forged = signed(3, 1, &["127.0.0.1:3"]).encode();
    *forged.last_mut().unwrap() ^= 1;
    let stored = [
        signed(1, 7, &["127.0.0.1:9"]),
        signed(2, 1, &["127.0.0.1:2"]),
        Announcement::decode(&forged).unwrap(),
    ];
    assert_eq!(node.on_loaded(stored).len(), 1);
    sign(&mut node, "127.0.0.1:1");
    assert_eq!(node.find_peer(&peer(2)), [address(2)]);
    assert_eq!(node.best[&peer(1)].counter(), 8, "our own is outdone: we moved");
}

#[test]
fn everything_is_stored_every_two_minutes_but_our_own_not_before_it_could_be_loaded() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.on_time(now + SAVE_INTERVAL);
    assert!(
        !actions(&mut node)
            .iter()
            .any(|action| matches!(action, Action::Store(_)))
    );
    node.add_group(GROUP, [1, 2].map(peer), []).unwrap();
    node.on_message(&message(signed(2, 1, &["127.0.0.1:2"]))).unwrap();
    actions(&mut node);
    node.on_time(now + SAVE_INTERVAL * 2);
    let stored = actions(&mut node).into_iter().find_map(|action| match action {
        Action::Store(stored) => Some(stored.iter().map(Announcement::peer).collect::<BTreeSet<_>>()),
        _ => None,
    });
    assert_eq!(stored, Some([1, 2].map(peer).into()));
}

#[test]
fn the_operator_is_told_after_ten_seconds_and_then_every_five_minutes() {
    let now = Instant::now();
    let mut node = node(now, 1, "127.0.0.1:1");
    node.add_group(GROUP, [1, 2].map(peer), []).unwrap();
    let mut reports = |after: u64| {
        node.on_time(now + Duration::from_secs(after));
        let reports = actions(&mut node).into_iter().filter_map(|action| match action {
            Action::Report(status) => Some(status.missing),
            _ => None,
        });
        reports.collect::<Vec<_>>()
    };
    assert!(reports(9).is_empty());
    assert_eq!(reports(10), [[peer(2)]]);
    assert!(reports(309).is_empty());
    assert_eq!(reports(310), [[peer(2)]]);
}
