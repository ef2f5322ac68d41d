//! TCP Fast Open as the kernel counts it, in a network namespace of the test's own, where it can be switched on.

#![cfg(all(feature = "fast-open", target_os = "linux"))]

use crate::common::*;
use libp2p_core::Transport as _;
use libp2p_knock::tokio::FastOpen;
use libp2p_knock::{Authenticated, Config, KeyExchange};
use std::process::Command;

const INSIDE: &str = "KNOCK_TEST_INSIDE_NAMESPACE";
const NAME: &str = "fast_open::a_second_dial_carries_knock_and_client_hello_in_its_syn";

/// The kernel's count of `name` in this namespace.
fn counted(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_whitespace().position(|at| at == name).unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}

#[test]
fn a_second_dial_carries_knock_and_client_hello_in_its_syn() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let inside = Command::new("unshare")
        .args(["--net", "sh", "-c"])
        .arg("ip link set lo up && echo 3 > /proc/sys/net/ipv4/tcp_fastopen && exec \"$0\" --exact \"$1\" --nocapture")
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(INSIDE, "1")
        .output();
    match inside {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "{text}");
        }
        failed if std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some() => panic!("{failed:?}"),
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("panicked") => panic!("{output:?}"),
        _ => println!("skipped: needs root, unshare and ip to switch on TCP Fast Open"),
    }
}

fn inside() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let small = |seed| -> Config { config(seed).with_key_exchange(&[KeyExchange::X25519]).unwrap() };
        let transport = Authenticated::new(FastOpen::default(), small(2));
        let mut listener = listen(transport, peer(2), "/ip4/127.0.0.1/tcp/0/tls").await;
        let mut dialling = Authenticated::new(FastOpen::default(), small(1));
        let mut dialled = Vec::new();
        for dial in 0..3 {
            let before = (counted("TCPFastOpenActive"), counted("TCPFastOpenPassive"));
            let connecting = dialling.dial(listener.address.clone(), dialer()).unwrap();
            dialled.push(soon("the dial", connecting).await.unwrap());
            assert_eq!(listener.upgraded().await.unwrap().0, peer(1));
            let after = (counted("TCPFastOpenActive"), counted("TCPFastOpenPassive"));
            // The first dial has no cookie yet.
            let fast = u64::from(dial > 0);
            assert_eq!((after.0 - before.0, after.1 - before.1), (fast, fast), "dial {dial}");
        }
    });
}
