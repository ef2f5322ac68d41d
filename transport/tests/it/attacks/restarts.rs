//! Peers come back at once to a listener that was started anew, from 250 prefixes of the loopback.
//!
//! The campaign prints how long it takes until all are up, and how many had to wait: with the file
//! of known prefixes and without. It does both again in a flood of so many knocks a second, by
//! strangers that know the listener's PeerID and have 250 prefixes of their own.
//!
//! ```text
//! KNOWN_FLOOD=2000 cargo test --release -p libp2p-knock --all-features --test it -- come_back --nocapture
//! ```

use super::floods::{From, connect_from};
use super::*;
use libp2p_identity::Keypair;
use libp2p_knock::internals::{with_time, wrap};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

const PREFIXES: usize = 250;

/// An address in the n-th prefix of peers.
fn home(n: usize) -> IpAddr {
    let prefix = u8::try_from(n % PREFIXES).unwrap();
    Ipv4Addr::new(127, 9, prefix, 9).into()
}

/// An address in the n-th prefix of strangers.
fn elsewhere(n: usize) -> IpAddr {
    let prefix = u8::try_from(n % PREFIXES).unwrap();
    Ipv4Addr::new(127, 10, prefix, 9).into()
}

/// A forgery that costs its listener the key work.
fn forged(n: usize) -> Vec<u8> {
    let mut noise = [0x5a; 176];
    noise[..8].copy_from_slice(&n.to_le_bytes());
    wrap(&callee(2), &Network::open(), &fresh(), &noise, b"hello")
}

/// A listener that has not run before, to which everything is new but what the file at `path` says.
async fn started(path: Option<&Path>, config: Config) -> Target {
    let config = config.with_max_waiting(8192.try_into().unwrap());
    let config = path.into_iter().fold(config, Config::with_known_prefixes_file);
    Target::closing_after(Duration::from_secs(60), config).await
}

/// Ends one, whose file is written then.
async fn stop(target: Target, path: &Path) {
    drop(target);
    until("the file", || path.exists()).await;
}

/// Dials until it is let in. How often it was refused.
async fn dial_until_in(n: usize, to: libp2p_core::Multiaddr, dialing: Config) -> usize {
    let mut refused = 0;
    loop {
        let mut transport = libp2p_knock::Authenticated::new(From(home(n)), dialing.clone());
        let dial = transport.dial(to.clone(), dialer()).unwrap();
        match dial.await {
            Ok(_) => return refused,
            Err(_) => refused += 1,
        }
    }
}

/// So many knocks a second, until it is aborted.
async fn flood(per_second: usize, to: SocketAddr) {
    let begin = Instant::now();
    for n in 0.. {
        let due = Duration::from_secs_f64(n as f64 / per_second as f64);
        tokio::time::sleep_until((begin + due).into()).await;
        if let Ok(mut socket) = connect_from(elsewhere(n), to).await {
            let _ = socket.write_all(&forged(n)).await;
        }
    }
}

/// How many had to wait, and how long it took until all were up.
async fn come_back(peers: &[Config], target: &Target) -> (usize, Duration) {
    let started = Instant::now();
    let dials = peers.iter().enumerate().map(|(n, config)| {
        let dial = dial_until_in(n, target.listener.address.clone(), config.clone());
        tokio::spawn(dial)
    });
    let refused = futures::future::join_all(dials.collect::<Vec<_>>()).await;
    let waited = refused.iter().filter(|refused| !matches!(refused, Ok(0))).count();
    (waited, started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_come_back_to_a_listener_that_was_started_anew() {
    let flooded = std::env::var("KNOWN_FLOOD").ok();
    let flooded = flooded.map(|told| told.parse::<usize>().expect("a number"));
    rlimit::increase_nofile_limit(16_384).expect("can raise the limit");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known");
    let peers: Vec<_> = (0..PREFIXES)
        .map(|_| Config::new(&Keypair::generate_ed25519()).unwrap())
        .collect();
    let mut runs = vec![
        ("the first start", Some(path.as_path()), None),
        ("a restart", Some(&path), None),
        ("a restart without the file", None, None),
    ];
    if flooded.is_some() {
        runs.push(("a restart in a flood", Some(&path), flooded));
        runs.push(("a restart in a flood without the file", None, flooded));
    }
    for (said, kept, flooded) in runs {
        let target = started(kept, config(2)).await;
        let to = target.listener.socket.unwrap();
        let flooding = flooded.map(|per_second| tokio::spawn(flood(per_second, to)));
        if flooding.is_some() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let (waited, took) = come_back(&peers, &target).await;
        println!(
            "{said}: {PREFIXES} peers up after {took:.1?}, {waited} had to wait ({})",
            target.all()
        );
        if let Some(flooding) = flooding {
            flooding.abort();
        } else {
            // Half a second's worth of openings is for all.
            assert_eq!(waited, 0, "{said}");
        }
        stop(target, &path).await;
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: BTreeSet<_> = text.lines().filter(|line| line.contains("/24 ")).collect();
    assert_eq!(kept.len(), PREFIXES);
    // What a thief learns of it: where peers live, to 256 addresses, and when one was there.
    assert!(kept.iter().all(|line| line.starts_with("127.9.")), "{text}");
}

/// All knock in one instant: the budgets see no time pass, so the counts are exact.
#[tokio::test]
async fn peers_that_were_known_before_a_restart_do_not_wait_for_strangers_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known");
    let before = started(Some(&path), config(2)).await;
    let dials = (0..PREFIXES).map(|n| dial_until_in(n, before.listener.address.clone(), config(1)));
    futures::future::join_all(dials).await;
    stop(before, &path).await;

    let hello = client_hello();
    for (openings, strangers, kept, refused) in [
        // A second's worth comes back. Strangers have half of it, and half of the rest.
        (250, 0, Some(path.as_path()), 0),
        (250, 0, None, 250 - 126 - 62),
        // Strangers come first, and take all that they can: known ones find a quarter.
        (1000, 800, Some(path.as_path()), 1),
        (1000, 800, None, 250),
    ] {
        let now = SystemTime::now();
        let config = config(2).with_max_openings(openings.try_into().unwrap()).unwrap();
        let config = with_time(config, move || (now, Duration::from_secs(3600)));
        let target = started(kept, config).await;
        let to = target.listener.socket.unwrap();
        let mut sockets = Vec::new();
        for n in 0..strangers {
            let mut socket = connect_from(elsewhere(n), to).await.unwrap();
            socket.write_all(&forged(n)).await.unwrap();
            sockets.push(socket);
        }
        let judged = || target.knocks("refused_noise") + target.knocks("refused_budget");
        until("the strangers", || judged() == strangers).await;
        let strangers_refused = target.knocks("refused_budget");
        for n in 0..PREFIXES {
            let mut socket = connect_from(home(n), to).await.unwrap();
            socket.write_all(&sealed_at(1, 2, now, &hello)).await.unwrap();
            sockets.push(socket);
        }
        let judged = || target.knocks("accepted") + target.knocks("refused_budget") - strangers_refused;
        until("all of them", || judged() == PREFIXES).await;
        assert_eq!(PREFIXES - target.knocks("accepted"), refused, "{openings}, {kept:?}");
    }
}
