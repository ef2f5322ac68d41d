//! `busy-node`, as its user would run it.

use std::process::{Command, Stdio};

#[test]
fn three_hundred_peers_come_and_sixty_stay() {
    let output = Command::new(env!("CARGO_BIN_EXE_busy-node"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(printed.contains("ok  60 connections are left of 300"), "{printed}");
    assert_eq!(printed.lines().last(), Some("busy-node: 4/4 ok"));
    assert!(!printed.contains('\u{1b}'), "no colours where stdout is no terminal");
}

#[test]
fn what_cannot_be_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_busy-node"))
        .args(["--useful", "100"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("more useful peers"));
}

#[test]
fn at_the_hard_limit_strangers_are_denied_and_no_friend_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_busy-node"))
        .args(["--peers", "120", "--most", "60", "--high", "60", "--low", "50"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let denied = printed
        .lines()
        .find_map(|line| line.split_once(" were denied"))
        .unwrap()
        .0;
    assert!(denied.parse::<usize>().unwrap() > 0, "{printed}");
    assert_eq!(printed.lines().last(), Some("busy-node: 4/4 ok"), "{printed}");
}
