//! The texts and the lines.

use crate::common::*;
use crate::logged::{self, Line, Mark};
use futures::StreamExt as _;
use libp2p::swarm::{DialError, SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, ping, tcp, yamux};
use libp2p_core::Transport as _;
use libp2p_knock::unanswered::{Cause, Heard, OwnClock, Unanswered};
use libp2p_knock::{Config, Error, Failure, Network, Stage, Version};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// In place of five seconds.
const PATIENT: Duration = Duration::from_millis(300);

/// A Swarm of an application, with everything round the knock that a builder puts there.
fn application(seed: u8, config: impl FnOnce(Config) -> Config) -> Swarm<dummy::Behaviour> {
    SwarmBuilder::with_existing_identity(keypair(seed))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_other_transport(|key| {
            let config = config(Config::new(key)?.with_handshake_timeout(PATIENT));
            Ok(libp2p_knock::tokio::Transport::new(config))
        })
        .unwrap()
        .with_dns()
        .unwrap()
        .with_behaviour(|_| dummy::Behaviour)
        .unwrap()
        .build()
}

/// An error and its sources, as most programs print it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Dials, and returns what is found in the Swarm's error and what the Swarm prints.
async fn fails(swarm: &mut Swarm<dummy::Behaviour>, address: Multiaddr) -> (Unanswered, String) {
    swarm.dial(address).unwrap();
    let error = soon("a failed dial", async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::OutgoingConnectionError { error, .. } => return error,
                SwarmEvent::ConnectionEstablished { .. } => panic!("connected"),
                _ => {}
            }
        }
    })
    .await;
    let printed = error.to_string();
    let DialError::Transport(errors) = &error else {
        panic!("{printed}")
    };
    match Failure::find(&errors[0].1) {
        Some(Error::Unanswered(unanswered)) => {
            // Also by a program that prints an error and all its sources.
            for printed in [&printed, &whole(&errors[0].1)] {
                let times = printed.matches(&unanswered.to_string()).count();
                assert_eq!(times, 1, "said once: {printed}");
            }
            (Unanswered::clone(unanswered), printed)
        }
        other => panic!("{other:?}"),
    }
}

/// The same by the transport alone, for a configuration that listens too.
async fn fails_of(config: Config, address: Multiaddr) -> Unanswered {
    let dial = authenticated(config).dial(address, dialer()).unwrap();
    let failure = soon("the dial", dial).await.unwrap_err();
    assert_eq!(failure.stage(), Stage::Knock);
    unanswered(&failure).clone()
}

async fn connects(swarm: &mut Swarm<dummy::Behaviour>, address: Multiaddr) {
    swarm.dial(address).unwrap();
    soon("a dial", async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                SwarmEvent::ConnectionEstablished { .. } => return,
                _ => {}
            }
        }
    })
    .await;
}

fn at(port: u16, seed: u8) -> Multiaddr {
    let address = format!("/ip4/127.0.0.1/tcp/{port}/tls/p2p/{}", peer(seed));
    address.parse().unwrap()
}

/// A listener whose configuration is `config`, as the dialer of the tests cannot know.
async fn listener(config: Config) -> (Victim, u16) {
    // A knock has to be younger than the process that it is for, by a millisecond or two.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let listener = victim(config).await;
    let port = listener.socket.unwrap().port();
    (listener, port)
}

/// The lines of a listener about `peer`, or about a socket of which no peer is known.
async fn refused(log: &Mark, peer: Option<PeerId>) -> Vec<Line> {
    let peer = peer.map(|peer| peer.to_string());
    let found = || {
        let about = |line: &Line| line.says("a socket is not answered") && line.field("peer") == peer.as_deref();
        log.lines().into_iter().filter(about).collect::<Vec<_>>()
    };
    soon("a line of the listener", async {
        loop {
            let found = found();
            if !found.is_empty() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// A wall clock that can be set.
#[derive(Clone, Default)]
struct Adjustable(Arc<AtomicI64>);

impl Adjustable {
    fn set_ahead(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    fn on(&self, config: Config) -> Config {
        let clock = self.0.clone();
        let now = move || match clock.load(Ordering::Relaxed) {
            ahead @ 0.. => SystemTime::now() + Duration::from_secs(ahead.unsigned_abs()),
            behind => SystemTime::now() - Duration::from_secs(behind.unsigned_abs()),
        };
        config.dangerous().with_clock(now).unwrap()
    }
}

/// What a listener logs about a peer that knocks otherwise than it is configured here.
const CONFIGURED: &str = "the two ends are configured differently";

#[derive(Debug, thiserror::Error)]
#[error("not on the list")]
struct NotOnTheList;

fn admits_nobody(config: Config) -> Config {
    config.with_admission(|_, _| Err(NotOnTheList.into()))
}

/// A text belongs to one cause, whatever the peer is called.
fn is_own_text_of(cause: Cause, unanswered: &Unanswered) {
    static TEXTS: Mutex<BTreeMap<String, Cause>> = Mutex::new(BTreeMap::new());
    let text = unanswered
        .to_string()
        .replace(&unanswered.peer().to_string(), "the peer");
    let of = *TEXTS.lock().unwrap().entry(text).or_insert(cause);
    assert_eq!(of, cause, "{unanswered}");
}

#[tokio::test]
async fn wrong_peer_id_the_peer_that_answered_at_the_address_is_named() {
    let log = logged::mark().await;
    let (_another, port) = listener(config(11)).await;
    let mut dialer = application(1, |config| config);
    // Nothing is known but that no byte came.
    let (silence, printed) = fails(&mut dialer, at(port, 12)).await;
    assert_eq!((silence.peer(), silence.heard()), (&peer(12), &Heard::Nothing));
    assert_eq!((silence.causes()[0], silence.after()), (Cause::WrongPeer, PATIENT));
    let text = "no byte came within 300ms; perhaps another peer listens there, ";
    assert!(printed.contains(text), "{printed}");
    let line = &refused(&log, None).await[0];
    assert_eq!(line.field("prefix"), Some("127.0.0.0/24"));
    let reason = line.field("reason").unwrap();
    assert!(reason.starts_with("the box does not open"), "{line:?}");

    connects(&mut dialer, at(port, 11)).await;
    let (wrong, printed) = fails(&mut dialer, at(port, 12)).await;
    assert_eq!(
        (wrong.causes()[0], wrong.answered_there()),
        (Cause::WrongPeer, Some(peer(11)))
    );
    let text = format!(
        "; perhaps another peer listens there ({} answered at this address ",
        peer(11)
    );
    assert!(printed.contains(&text), "{printed}");
    is_own_text_of(Cause::WrongPeer, &wrong);
}

#[tokio::test]
async fn not_admitted_the_text_says_when_the_peer_last_answered() {
    let log = logged::mark().await;
    let (_listener, port) = listener(config(13)).await;
    let mut dialer = application(2, |config| config);
    connects(&mut dialer, at(port, 13)).await;
    let (_listener, port) = listener(admits_nobody(config(13))).await;
    let (unanswered, printed) = fails(&mut dialer, at(port, 13)).await;
    assert_eq!(
        (unanswered.heard(), unanswered.causes()[0]),
        (&Heard::Nothing, Cause::NotAdmitted)
    );
    assert!(unanswered.last_answer().is_some());
    assert!(printed.contains("ms ago; perhaps it does not admit us, "), "{printed}");
    is_own_text_of(Cause::NotAdmitted, &unanswered);
    let line = &refused(&log, Some(peer(2))).await[0];
    assert_eq!(line.field("reason"), Some("denied: not on the list"));
}

#[tokio::test]
async fn clock_off_one_that_was_set_is_named_with_the_seconds() {
    let log = logged::mark().await;
    let clock = Adjustable::default();
    let (_listener, port) = listener(config(14)).await;
    let mut dialer = application(3, |config| clock.on(config));
    connects(&mut dialer, at(port, 14)).await;
    clock.set_ahead(400);
    let (off, printed) = fails(&mut dialer, at(port, 14)).await;
    if cfg!(any(target_os = "linux", target_os = "android")) {
        let OwnClock::Set { seconds, .. } = off.own_clock() else {
            panic!("{off:?}")
        };
        assert!((390..=410).contains(&seconds), "{off:?}");
        assert_eq!(off.causes()[0], Cause::Clock);
        let text = format!("; perhaps our clock is wrong: it was set by +{seconds} s");
        assert!(printed.contains(&text), "{printed}");
    }
    is_own_text_of(Cause::Clock, &off);
    let line = &refused(&log, Some(peer(3))).await[0];
    assert!(line.field("reason").unwrap().contains("120 s"), "{line:?}");
    // At `warn`, with the seconds: an operator can mend it.
    let lines = log.lines();
    let warned = lines
        .iter()
        .find(|line| line.says("one of the clocks is wrong"))
        .unwrap();
    assert_eq!(warned.level, tracing::Level::WARN);
    let seconds: i64 = warned.field("seconds_ahead").unwrap().parse().unwrap();
    assert!((390..=410).contains(&seconds), "{warned:?}");
}

#[tokio::test]
async fn clock_off_from_the_beginning_is_suspected_when_three_peers_do_not_answer() {
    let _log = logged::mark().await;
    let clock = Adjustable::default();
    clock.set_ahead(-400);
    let mut dialer = application(4, |config| clock.on(config));
    let mut last = None;
    for (n, seed) in [15, 16, 17].into_iter().enumerate() {
        let (_listener, port) = listener(config(seed)).await;
        let (silent, printed) = fails(&mut dialer, at(port, seed)).await;
        assert_eq!(silent.silent_peers(), n + 1);
        last = Some((silent, printed));
    }
    let (silent, printed) = last.unwrap();
    assert_eq!(
        (silent.own_clock(), silent.causes()[0]),
        (OwnClock::Unknown, Cause::Clock)
    );
    let text = "our clock is off by more than 120 s: 3 peers in a row";
    assert!(printed.contains(text), "{printed}");
    is_own_text_of(Cause::Clock, &silent);
}

/// They are there, and answer. Nothing of that says anything about a clock.
#[tokio::test]
async fn peers_that_answer_in_another_protocol_or_close_at_once_do_not_make_our_clock_suspect() {
    let _log = logged::mark().await;
    let mut dialer = application(4, |config| config);
    for (seed, answer) in [
        &b"\x13/multistream/1.0.0\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"220 mail",
        b"",
    ]
    .into_iter()
    .enumerate()
    {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            let (mut socket, _) = server.accept().await.unwrap();
            let mut sink = [0; 4096];
            tokio::io::AsyncReadExt::read(&mut socket, &mut sink).await.unwrap();
            socket.write_all(answer).await.unwrap();
        });
        let (unanswered, _) = fails(&mut dialer, at(port, 40 + seed as u8)).await;
        assert_eq!(unanswered.silent_peers(), 0, "{unanswered}");
        soon("the server's end", serve).await.unwrap();
    }
    let (_listener, port) = listener(admits_nobody(config(15))).await;
    let (silent, _) = fails(&mut dialer, at(port, 15)).await;
    assert_eq!(silent.silent_peers(), 1);
    assert_ne!(silent.causes()[0], Cause::Clock, "{silent}");
}

#[tokio::test]
async fn clock_off_the_peer_that_knocks_here_shows_by_how_much() {
    let _log = logged::mark().await;
    let clock = Adjustable::default();
    clock.set_ahead(300);
    let ours = config(5).with_handshake_timeout(PATIENT);
    let (_us, port_of_us) = listener(ours.clone()).await;
    let mut peer_with_clock = application(9, |config| clock.on(config));
    fails(&mut peer_with_clock, at(port_of_us, 5)).await;
    let (_listener, port) = listener(clock.on(config(9))).await;
    let unanswered = fails_of(ours, at(port, 9)).await;
    assert_eq!(unanswered.causes()[0], Cause::Clock);
    let Some(290..=310) = unanswered.its_seconds_ahead() else {
        panic!("{unanswered:?}")
    };
    let text = unanswered.to_string();
    assert!(
        text.contains("; perhaps its clock and ours differ: its own knock here was "),
        "{text}"
    );
    is_own_text_of(Cause::Clock, &unanswered);
}

#[tokio::test]
async fn stock_port_is_told_by_its_close() {
    let log = logged::mark().await;
    let mut stock = SwarmBuilder::with_existing_identity(keypair(18))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| ping::Behaviour::default())
        .unwrap()
        .build();
    stock.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let port = soon("its address", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = stock.select_next_some().await {
                return socket_of(&address).unwrap().port();
            }
        }
    })
    .await;
    tokio::spawn(async move { while stock.next().await.is_some() {} });
    let mut dialer = application(35, |config| config);
    let mut heard = None;
    // A sealed knock is random, and one in five begins like a message for which such a port waits.
    for _ in 0..20 {
        let (stock, printed) = fails(&mut dialer, at(port, 18)).await;
        if *stock.heard() != Heard::Nothing {
            heard = Some((stock, printed));
            break;
        }
    }
    let (unanswered, printed) = heard.expect("it is no knock's port");
    assert!(
        matches!(unanswered.heard(), Heard::Closed | Heard::Reset),
        "{unanswered:?}"
    );
    assert_eq!(unanswered.causes()[0], Cause::OtherProtocol);
    let text = "; perhaps the port is not that of a knock but of stock libp2p";
    assert!(printed.contains(text), "{printed}");
    is_own_text_of(Cause::OtherProtocol, &unanswered);
    // The listener is not ours; the dialer's own log has the reason.
    let lines = log.lines();
    let failed = lines.iter().rfind(|line| line.says("the dial failed")).unwrap();
    assert_eq!(failed.field("peer"), Some(&*peer(18).to_string()));
    assert!(failed.field("error").unwrap().contains("stock libp2p"), "{failed:?}");
}

#[tokio::test]
async fn other_network_ours_is_named() {
    let log = logged::mark().await;
    let theirs = Network::private(b"theirs", &[7; 32]).unwrap();
    let (_listener, port) = listener(config(19).with_network(theirs).unwrap()).await;
    let ours = Network::private(b"ours", &[8; 32]).unwrap();
    let mut dialer = application(6, |config| config.with_network(ours).unwrap());
    let (unanswered, printed) = fails(&mut dialer, at(port, 19)).await;
    assert!(unanswered.causes().contains(&Cause::OtherNetwork));
    assert!(printed.contains(", it is not in our network \"ours\", "), "{printed}");
    is_own_text_of(Cause::OtherNetwork, &unanswered);
    let line = &refused(&log, None).await[0];
    assert_eq!(
        line.field("reason"),
        Some("the box does not open: no knock at us in this network")
    );
}

#[tokio::test]
async fn other_version_the_older_one_at_a_listener_of_the_newer() {
    let log = logged::mark().await;
    let (_listener, port) = listener(config(20)).await;
    let mut dialer = application(7, |config| config.with_version(Version::V2).unwrap());
    let (unanswered, printed) = fails(&mut dialer, at(port, 20)).await;
    let causes = unanswered.causes();
    assert!(causes.contains(&Cause::OtherVersion) && !causes.contains(&Cause::Clock));
    let text = ", it expects another knock than version 2, ";
    assert!(printed.contains(text), "{printed}");
    is_own_text_of(Cause::OtherVersion, &unanswered);
    let line = &refused(&log, Some(peer(7))).await[0];
    let reason = line.field("reason").unwrap();
    assert!(reason.starts_with("the box does not open"), "{line:?}");
    // An operator can do something about that.
    let lines = log.lines();
    let warned = lines.iter().find(|line| line.says(CONFIGURED)).expect("warned");
    let of = peer(7).to_string();
    assert_eq!((warned.level, warned.field("peer")), (tracing::Level::WARN, Some(&*of)));
    assert_eq!(warned.field("theirs"), Some("knock version 2"));
    assert_eq!(warned.field("ours"), Some("knock version 3, yamux"));
}

#[tokio::test]
async fn other_version_the_newer_one_at_a_listener_of_the_older() {
    let log = logged::mark().await;
    let (_listener, port) = listener(old(21)).await;
    let mut dialer = application(8, |config| config);
    let (unanswered, printed) = fails(&mut dialer, at(port, 21)).await;
    assert!(unanswered.causes().contains(&Cause::OtherVersion));
    let text = ", it expects another knock than version 3, ";
    assert!(printed.contains(text), "{printed}");
    let line = &refused(&log, Some(peer(8))).await[0];
    let reason = "the caller is configured to knock or to speak otherwise";
    assert_eq!(line.field("reason"), Some(reason));
    assert!(log.lines().iter().any(|line| line.says(CONFIGURED)));
}

#[tokio::test]
async fn other_version_a_peer_that_knocks_here_with_another_one_is_known_by_that() {
    let _log = logged::mark().await;
    let ours = config(36).with_handshake_timeout(PATIENT);
    let (_us, port_of_us) = listener(ours.clone()).await;
    let mut older = application(22, |config| config.with_version(Version::V2).unwrap());
    fails(&mut older, at(port_of_us, 36)).await;
    let (_listener, port) = listener(old(22)).await;
    let unanswered = fails_of(ours, at(port, 22)).await;
    assert_eq!(
        (unanswered.causes()[0], unanswered.its_version()),
        (Cause::OtherVersion, Some(Version::V2))
    );
    let text = unanswered.to_string();
    let sign = "; perhaps it is configured otherwise: it knocks here with knock version 2, as Go's ragep2p does";
    assert!(text.contains(sign), "{text}");
    is_own_text_of(Cause::OtherVersion, &unanswered);
}

#[tokio::test]
async fn what_another_server_answers_is_named() {
    let _log = logged::mark().await;
    for (answer, heard, text) in [
        // What go-libp2p's listener says before it has heard anything.
        (
            &b"\x13/multistream/1.0.0\n"[..],
            Heard::Multistream,
            "stock libp2p listens there",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            Heard::Http,
            "an HTTP server answered",
        ),
        (
            &[21, 3, 1, 0, 2, 2, 70],
            Heard::Alert(70),
            "a TLS server answered, with alert 70",
        ),
        (
            b"220 mail",
            Heard::Other(b"220 mail".to_vec()),
            "bytes came that are no TLS, \"220 mail\"",
        ),
    ] {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            let (mut socket, _) = server.accept().await.unwrap();
            socket.write_all(answer).await.unwrap();
            // Until the dialer has gone.
            let mut sink = [0; 4096];
            while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut socket, &mut sink).await {}
        });
        let mut dialer = application(1, |config| config);
        let (unanswered, printed) = fails(&mut dialer, at(port, 30)).await;
        assert_eq!(
            (unanswered.heard(), &unanswered.causes()[..]),
            (&heard, &[Cause::OtherProtocol][..])
        );
        assert!(printed.contains(text), "{printed}");
        soon("the server's end", serve).await.unwrap();
    }
}

#[tokio::test]
async fn a_listener_that_begins_to_answer_is_no_knock_that_was_not_answered() {
    let _log = logged::mark().await;
    let (listener, port) = listener(config(31)).await;
    let reference = listener.socket.unwrap();
    // Passes the knock on, the first byte of the answer back, and nothing more.
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let by_way = between.local_addr().unwrap().port();
    assert_ne!(port, by_way);
    let passing = tokio::spawn(async move {
        let (mut near, _) = between.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(reference).await.unwrap();
        let mut knock = vec![0; 4096];
        let n = tokio::io::AsyncReadExt::read(&mut near, &mut knock).await.unwrap();
        far.write_all(&knock[..n]).await.unwrap();
        let mut first = [0; 1];
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut first).await.unwrap();
        near.write_all(&first).await.unwrap();
        while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut near, &mut knock).await {}
    });
    let dial = authenticated(config(9).with_handshake_timeout(PATIENT)).dial(at(by_way, 31), dialer());
    let failure = soon("the dial", dial.unwrap()).await.unwrap_err();
    assert!(matches!(failure.error(), Error::Timeout(PATIENT)), "{failure:?}");
    assert_eq!(failure.stage(), Stage::Tls);
    soon("the way", passing).await.unwrap();
}

#[tokio::test]
async fn a_dialer_logs_each_step_of_its_dial() {
    let log = logged::mark().await;
    let (_listener, port) = listener(config(32)).await;
    let mut dialer = application(33, |config| config);
    connects(&mut dialer, at(port, 32)).await;
    fails(&mut dialer, at(port, 34)).await;
    let steps = |seed| {
        let peer = peer(seed).to_string();
        let about = |line: &&Line| line.field("peer") == Some(&*peer);
        let lines = log.lines();
        let messages: Vec<String> = lines
            .iter()
            .filter(about)
            .map(|line| line.message().to_owned())
            .collect();
        messages
    };
    let reached = [
        "connecting",
        "connected",
        "knocking",
        "answered, TLS is done",
        "dialled",
    ];
    assert_eq!(steps(32), reached);
    assert_eq!(steps(34), ["connecting", "connected", "knocking", "the dial failed"]);
    let lines = log.lines();
    let failed = lines.iter().find(|line| line.says("the dial failed")).unwrap();
    assert_eq!(failed.field("stage"), Some("knock"));
    assert!(
        failed.field("error").unwrap().contains("was not answered"),
        "{failed:?}"
    );
    let answered = lines.iter().find(|line| line.says("a knock is answered")).unwrap();
    assert_eq!(answered.field("peer"), Some(&*peer(33).to_string()));
    assert_eq!(answered.field("dialect"), Some("knock version 3, yamux"));
    // A Swarm that waits no longer drops the dial.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut dial = authenticated(config(33))
        .dial(at(port, 37), crate::common::dialer())
        .unwrap();
    soon("the knock", async {
        while steps(37).last().is_none_or(|step| step != "knocking") {
            assert!(futures::poll!(&mut dial).is_pending());
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(dial);
    let given_up = ["connecting", "connected", "knocking", "the dial was given up"];
    assert_eq!(steps(37), given_up);
}

#[tokio::test]
async fn a_listener_logs_one_line_about_the_same_however_often_it_happens() {
    let log = logged::mark().await;
    let (_listener, port) = listener(admits_nobody(config(38))).await;
    let mut dialers = [39, 40].map(|seed| application(seed, |config| config));
    for _ in 0..3 {
        for dialer in &mut dialers {
            // Another peer, and one that the listener refuses.
            fails(dialer, at(port, 41)).await;
            fails(dialer, at(port, 38)).await;
        }
    }
    for of in [None, Some(peer(39)), Some(peer(40))] {
        assert_eq!(refused(&log, of).await.len(), 1, "{of:?}");
    }
}
