//! Every plugin does its part in the one program.

use crate::process::{ALL, KNOCK, Node, QUIC, STOCK, TCP};
use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, SwarmBuilder, noise, relay, tcp, yamux};

const HEAD: &str = "libp2p-gater rules 1\n";

/// A number in a scrape.
fn value(text: &str, metric: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn one_program_meets_its_own_kind_by_knock_and_quic_and_stock_ones_by_stock() {
    let listen = [
        "--listen",
        TCP,
        "--listen",
        KNOCK,
        "--listen",
        QUIC,
        "--metrics",
        "127.0.0.1:0",
    ];
    let mut hub = Node::start(ALL, &listen);
    let (tcp, knock, quic) = (hub.address("/tcp/"), hub.address("/tls"), hub.address("/quic-v1"));
    let mut members = [(STOCK, &tcp), (STOCK, &quic), (ALL, &tcp), (ALL, &knock), (ALL, &quic)].map(|(program, at)| {
        let mut member = Node::start(program, &["--dial", at]);
        let through = member.expect(&format!("connected {} ", hub.peer));
        assert_eq!(through, *at);
        member.expect(&format!("joined {}", hub.peer));
        hub.expect(&format!("joined {}", member.peer));
        member
    });
    // From each to each, through the hub.
    for at in 0..members.len() {
        let line = format!("from {at}");
        members[at].type_line(&line);
        let said = format!("said {line}");
        hub.find(|heard| heard == said);
        for (other, member) in members.iter_mut().enumerate() {
            if other != at {
                member.find(|heard| heard == said);
            }
        }
    }
    // Gossipsub thinks well of those who have been with it for a while, and the manager knows.
    for member in &members {
        let known = format!("known {} {{\"gossipsub\": ", member.peer);
        hub.ask_until("/peers", |line| {
            let score = line.strip_prefix(&known).and_then(|rest| rest.strip_suffix('}'));
            score.is_some_and(|score| score.parse::<i64>().unwrap() > 0)
        });
    }
    let text = hub.scrape();
    for name in [
        "libp2p_gater_decisions_total{",
        "libp2p_connmgr_connections{",
        "libp2p_knock_handshakes_total{",
        "libp2p_swarm_connections_established_total{",
        "libp2p_gossipsub_",
        "libp2p_bandwidth_bytes_total{",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "no {name} in {text}");
    }
    // Nothing else counts streams, so that all three transports are counted.
    let counted = |class: &str| value(&text, &format!("libp2p_connmgr_connections{{class=\"{class}\"}}"));
    assert_eq!(counted("in_grace"), 5.0, "{text}");
}

#[test]
fn a_signal_reloads_the_rules_and_the_blocked_peer_is_told() {
    let dir = Node::dir();
    std::fs::write(dir.join("rules"), format!("{HEAD}end\n")).unwrap();
    let mut hub = Node::start_in(dir, ALL, &["--listen", KNOCK, "--rules", "rules"]);
    let address = hub.address("/tls");
    let mut member = Node::start(ALL, &["--want", &address]);
    hub.expect(&format!("connected {}", member.peer));

    hub.write("rules", &format!("{HEAD}block peer nobody\nend\n"));
    hub.signal("-HUP");
    let why = hub.expect("not-reloaded ");
    assert!(why.contains("nobody"), "{why}");

    hub.write("rules", &format!("{HEAD}block peer {}\nend\n", member.peer));
    hub.signal("-HUP");
    hub.find(|line| line == "reloaded");
    let told = member.find(|line| line.starts_with("gate ") && line.contains("Heard"));
    assert!(told.contains(&hub.peer), "{told}");
    hub.expect(&format!("closed {}", member.peer));
    // It wants the hub, and waits as it was told to.
    member.find(|line| line.starts_with("wanted DialFailed") && line.contains("goodbye"));
}

#[test]
fn at_the_hard_limit_a_wanted_peer_takes_a_strangers_place_who_is_told_and_further_strangers_are_refused() {
    let mut friend = Node::start(ALL, &["--listen", KNOCK]);
    let wanted = friend.address("/tls");
    let listen = [
        "--listen",
        TCP,
        "--listen",
        KNOCK,
        "--most",
        "2",
        "--metrics",
        "127.0.0.1:0",
    ];
    let mut hub = Node::start(ALL, &[&listen[..], &["--want", &wanted]].concat());
    let (tcp, knock) = (hub.address("/tcp/"), hub.address("/tls"));
    hub.expect(&format!("connected {}", friend.peer));
    let dir = friend.stop();
    hub.expect("wanted Disconnected");

    let mut strangers = [(); 2].map(|()| Node::start(ALL, &["--dial", &knock]));
    for stranger in &strangers {
        hub.expect(&format!("connected {}", stranger.peer));
    }
    let mut refused = [&tcp, &knock].map(|address| Node::start(ALL, &["--dial", address]));
    for stranger in &mut refused {
        // Over stock TCP the dialer is done with its handshake before it is refused.
        stranger.find(|line| line.starts_with("dial-failed ") || line.starts_with("closed "));
    }
    let text = hub.scrape();
    let denied = |stage: &str| {
        let labels = format!("{{stage=\"{stage}\",verdict=\"deny\",rule=\"admission\"}}");
        value(&text, &format!("libp2p_gater_decisions_total{labels}"))
    };
    assert!(denied("knock") >= 1.0, "{text}");
    assert!(denied("upgraded") + denied("secured") >= 1.0, "{text}");

    let (at, _) = wanted.split_once("/p2p/").unwrap();
    let _friend = Node::start_in(dir, ALL, &["--listen", at]);
    let trimmed = hub.expect("manager Trimmed ");
    let goes = strangers.iter_mut().find(|stranger| trimmed.contains(&stranger.peer));
    let told = goes
        .unwrap()
        .find(|line| line.starts_with("gate ") && line.contains("Heard"));
    assert!(told.contains("Trimmed") && told.contains("hard_limit"), "{told}");
}

#[tokio::test]
async fn a_circuit_leads_from_one_to_the_other() {
    let mut server = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| relay::Behaviour::new(key.public().to_peer_id(), relay::Config::default()))
        .unwrap()
        .build();
    server.listen_on(TCP.parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = server.select_next_some().await {
            break address;
        }
    };
    server.add_external_address(address.clone());
    let relay: Multiaddr = address.with_p2p(*server.local_peer_id()).unwrap();
    tokio::spawn(async move {
        loop {
            server.select_next_some().await;
        }
    });
    let circuit = format!("{relay}/p2p-circuit");
    let chat = move || {
        for program in [ALL, STOCK] {
            let mut far = Node::start(ALL, &["--listen", &circuit]);
            far.find(|line| line.starts_with("listening ") && line.contains("/p2p-circuit"));
            let mut near = Node::start(program, &["--dial", &format!("{circuit}/p2p/{}", far.peer)]);
            near.expect(&format!("joined {}", far.peer));
            far.expect(&format!("joined {}", near.peer));
            near.type_line("hello");
            far.expect("said hello");
        }
    };
    tokio::task::spawn_blocking(chat).await.unwrap();
}
