//! What is too much, at either end.

use crate::go::{Go, STACKS, Stack, Sum, in_time, know, made_up, ours, peer, program, run, until, wide};
use serde_json::json;

const RUST: u8 = 1;
const GO: u8 = 2;

const SKIPPED: &str = "ragep2p_peer_conn_read_skipped_bytes_total";

/// Messages that are sent, of which a bucket of `PASS` lets the first through.
const SENT: u64 = 50;
const PASS: u64 = 20;

/// Of 1 B to 1 KiB.
const BITS: u64 = 10;

fn expected(name: &str) -> (String, u64) {
    let mut sum = Sum::default();
    let mut skipped = 0;
    for at in 0..SENT {
        let message = made_up(name, at, BITS);
        if at < PASS {
            sum.add(&message);
        } else {
            skipped += message.len() as u64;
        }
    }
    (sum.hex(), skipped)
}

#[test]
fn both_drop_the_same_messages_over_a_rate_and_count_the_same_bytes() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            let (host, list) = ours(RUST).await;
            let mut go = Go::start(program, GO, stack);
            know(&list, GO, &go);
            // A bucket that does not fill again: what passes does not depend on how fast anybody is.
            go.open(RUST, "x", &json!({"msg_rate": 0, "msg_cap": PASS}));
            go.open(RUST, "behind", &json!({}));
            let limited = wide().with_messages(0.0, u32::try_from(PASS).unwrap());
            let stream = host.open_stream(peer(GO), "x", limited).unwrap();
            let behind = host.open_stream(peer(GO), "behind", wide()).unwrap();
            let (hash, skipped) = expected("x");

            (0..SENT).for_each(|at| _ = stream.send(made_up("x", at, BITS)));
            let state = go.state("x", PASS);
            assert_eq!(state["hash"], hash);
            // All of them are through when this is, or nothing is.
            let mut gone = 0;
            while go.metric(SKIPPED) < skipped as f64 {
                gone += 1;
                behind.send("?");
                assert!(gone < 10_000, "not all of them were skipped");
            }
            assert_eq!(go.metric(SKIPPED), skipped as f64);

            go.send("x", 0, SENT, BITS);
            let mut sum = Sum::default();
            for _ in 0..PASS {
                sum.add(&in_time(stream.recv()).await.unwrap());
            }
            assert_eq!(sum.hex(), hash);
            let counters = host.counters().peer(&peer(GO)).unwrap();
            until("the rest is skipped", || counters.dropped_rate.get() == SENT - PASS).await;
            until("to the last byte", || counters.conn_read_skipped_bytes.get() >= skipped).await;
            assert_eq!(counters.conn_read_skipped_bytes.get(), skipped);
            assert_eq!(counters.conn_established.get(), 1);
        });
    }
}

#[test]
fn a_message_that_is_too_long_for_us_is_dropped_and_the_next_one_arrives() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            let (host, list) = ours(RUST).await;
            let mut go = Go::start(program, GO, stack);
            know(&list, GO, &go);
            go.open(RUST, "x", &json!({}));
            let stream = host.open_stream(peer(GO), "x", wide().with_max_message(10)).unwrap();
            go.text("x", "eleven byte");
            go.text("x", "ten bytes.");
            assert_eq!(in_time(stream.recv()).await.unwrap(), "ten bytes.");
            let counters = host.counters().peer(&peer(GO)).unwrap();
            assert_eq!(counters.dropped_oversize.get(), 1);
            assert_eq!(counters.conn_established.get(), 1);
        });
    }
}

#[test]
fn a_message_that_is_too_long_for_go_costs_that_message_and_at_most_a_connection() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            let (host, list) = ours(RUST).await;
            let mut go = Go::start(program, GO, stack);
            know(&list, GO, &go);
            go.open(RUST, "x", &json!({"max": 10}));
            let stream = host.open_stream(peer(GO), "x", wide()).unwrap();
            stream.send("first");
            go.state("x", 1);
            stream.send("eleven byte");
            let counters = host.counters().peer(&peer(GO)).unwrap();
            if stack == Stack::V1 {
                // It closes the connection, and we make another.
                until("another connection", || counters.conn_established.get() == 2).await;
            }
            stream.send("ten bytes.");
            assert_eq!(go.state("x", 2)["text"], "ten bytes.");
            let connections = if stack == Stack::V1 { 2 } else { 1 };
            assert_eq!(counters.conn_established.get(), connections);
        });
    }
}

#[test]
fn two_thousand_streams_and_names_of_256_bytes_are_the_most_for_both() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            let (host, list) = ours(RUST).await;
            let mut go = Go::start(program, GO, stack);
            know(&list, GO, &go);
            let name = "n".repeat(256);
            go.open(RUST, &name, &json!({"in": 1, "out": 1}));
            let stream = host.open_stream(peer(GO), &name, wide()).unwrap();
            stream.send("1");
            go.state(&name, 1);
            let refused = |go: &mut Go, name: &str| {
                let opening = go.opening("open", RUST, name, &json!({"in": 1, "out": 1}));
                go.tell(&opening);
                go.wait("error", name);
                assert!(host.open_stream(peer(GO), name, wide()).is_err());
            };
            refused(&mut go, &"n".repeat(257));
            let mut streams = vec![];
            for n in 1..2000 {
                let name = n.to_string();
                let opening = go.opening("open", RUST, &name, &json!({"in": 1, "out": 1}));
                go.tell(&opening);
                streams.push(host.open_stream(peer(GO), &name, wide()).unwrap());
            }
            go.wait("done", "1999");
            refused(&mut go, "one more");
            // The last of them works, and all of this was one connection.
            streams[1998].send("x");
            go.state("1999", 1);
            let counters = host.counters().peer(&peer(GO)).unwrap();
            assert_eq!(counters.conn_established.get(), 1);
        });
    }
}
