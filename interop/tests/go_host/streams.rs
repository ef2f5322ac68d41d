//! What works.

use crate::go::{Go, STACKS, Stack, Sum, in_time, know, made_up, ours, peer, program, run, until, wide};
use knock_host::{Inbound, Priority, ResponsePolicy, Stream};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const RUST: u8 = 1;
const GO: u8 = 2;
const STREAMS: usize = 20;

/// Messages in each direction. `KNOCK_HOST_MESSAGES=100000` for the long form.
fn messages() -> u64 {
    let set = std::env::var("KNOCK_HOST_MESSAGES").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(4000)
}

/// Messages of one stream that are under way at once: no buffer overflows.
const ROUND: u64 = 100;

/// 1 B to 1 MiB.
const BITS: u64 = 20;

async fn receive(stream: Arc<Stream>, sum: &mut Sum, count: u64) {
    for _ in 0..count {
        sum.add(&stream.recv().await.expect("the stream is open"));
    }
}

fn twenty_streams(stack: Stack, we_dial: bool) {
    let Some(program) = program() else { return };
    run(async {
        let (host, list) = ours(RUST).await;
        let mut go = Go::start(program, GO, stack);
        if we_dial {
            know(&list, GO, &go);
        } else {
            go.know(&host);
        }
        let names: Vec<String> = (0..STREAMS).map(|n| format!("stream {n}")).collect();
        let mut streams = Vec::new();
        for name in &names {
            go.open(RUST, name, &json!({}));
            let stream = host.open_stream(peer(GO), name, wide()).unwrap();
            streams.push((Arc::new(stream), Sum::default(), Sum::default()));
        }
        let each = messages() / STREAMS as u64;
        let mut from = 0;
        while from < each {
            let count = ROUND.min(each - from);
            for (name, (stream, sent, _)) in names.iter().zip(&mut streams) {
                go.send(name, from, count, BITS);
                for at in from..from + count {
                    let message = made_up(name, at, BITS);
                    sent.add(&message);
                    stream.send(message);
                }
            }
            let rest = streams
                .iter_mut()
                .map(|(stream, _, got)| receive(stream.clone(), got, count));
            in_time(futures::future::join_all(rest)).await;
            from += count;
            for (name, (_, sent, _)) in names.iter().zip(&streams) {
                let state = go.state(name, from);
                assert_eq!(
                    (&state["count"], &state["hash"]),
                    (&json!(from), &json!(sent.hex())),
                    "{name}"
                );
            }
        }
        for (name, (_, _, got)) in names.iter().zip(&streams) {
            let mut made = Sum::default();
            (0..each).for_each(|at| made.add(&made_up(name, at, BITS)));
            assert_eq!(got.hex(), made.hex(), "{name}");
        }
        let counters = host.counters().peer(&peer(GO)).unwrap();
        let inbound = counters.conn_established_inbound.get();
        assert_eq!((counters.conn_established.get(), inbound), (1, u64::from(!we_dial)));
    });
}

#[test]
fn twenty_streams_are_the_same_at_both_ends_when_we_dial() {
    STACKS.iter().for_each(|stack| twenty_streams(*stack, true));
}

#[test]
fn twenty_streams_are_the_same_at_both_ends_when_go_dials() {
    STACKS.iter().for_each(|stack| twenty_streams(*stack, false));
}

#[test]
fn the_newer_stack_asks_and_is_asked() {
    let Some(program) = program() else { return };
    run(async {
        let (host, list) = ours(RUST).await;
        let mut go = Go::start(program, GO, Stack::New);
        know(&list, GO, &go);
        go.open2(RUST, "x", &json!({"max": 20, "low": true}));
        let limits = wide().with_max_message(20);
        let stream = host.open_stream2(peer(GO), "x", Priority::Default, limits).unwrap();

        // We ask; the answer is longer than the streams' limit.
        let question = "a question of 20 by.";
        let expires = Instant::now() + Duration::from_secs(3600);
        let max_size = question.len() + 4;
        stream.request(question, ResponsePolicy { max_size, expires });
        go.wait("request", "x");
        assert_eq!(
            in_time(stream.recv()).await,
            Some(Inbound::Response(format!("re: {question}").into()))
        );
        // An answer that is too long, or too late, is none. The plain message behind it shows that it is not to come.
        let small = ResponsePolicy { max_size: 3, expires };
        stream.request("too long", small);
        go.wait("request", "x");
        let late = ResponsePolicy {
            max_size,
            expires: Instant::now(),
        };
        stream.request("too late", late);
        go.wait("request", "x");
        go.text("x", "behind it");
        assert_eq!(in_time(stream.recv()).await, Some(Inbound::Plain("behind it".into())));

        // Go asks; one answer is taken.
        go.tell(&json!({"cmd": "request", "name": "x", "text": "and you?", "policy": 100, "ttl_ms": 3_600_000}));
        let Some(Inbound::Request { handle, payload }) = in_time(stream.recv()).await else {
            panic!("no request");
        };
        assert_eq!(payload, "and you?");
        stream.respond(handle.clone(), "fine, and this is longer than 20 bytes");
        stream.respond(handle, "really");
        stream.send("plain");
        assert_eq!(
            go.wait("response", "x")["text"],
            "fine, and this is longer than 20 bytes"
        );
        go.state("x", 1);
        let responses = go
            .process
            .events()
            .into_iter()
            .filter(|e| e["event"] == "response")
            .count();
        assert_eq!(responses, 1);
    });
}

#[test]
fn streams_come_and_go_without_the_others() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            let (host, list) = ours(RUST).await;
            let mut go = Go::start(program, GO, stack);
            know(&list, GO, &go);
            go.open(RUST, "stays", &json!({}));
            let stays = host.open_stream(peer(GO), "stays", wide()).unwrap();
            stays.send("1");
            go.state("stays", 1);
            for round in 1..=10 {
                let stream = host.open_stream(peer(GO), "comes and goes", wide()).unwrap();
                go.open(RUST, "comes and goes", &json!({}));
                stream.send("x");
                go.state("comes and goes", 1);
                go.text("comes and goes", "y");
                assert_eq!(in_time(stream.recv()).await.unwrap(), "y", "round {round}");
                drop(stream);
                go.tell(&json!({"cmd": "close", "name": "comes and goes"}));
                go.wait("done", "comes and goes");
            }
            stays.send("2");
            go.state("stays", 2);
            let counters = host.counters().peer(&peer(GO)).unwrap();
            assert_eq!(counters.conn_established.get(), 1, "one connection saw all of it");
        });
    }
}

#[test]
fn go_without_the_hybrid_group_is_met_as_well() {
    let Some(program) = program() else { return };
    for (stack, debug) in [
        (Stack::V1, "tlsmlkem=0"),
        (Stack::New, "tlsmlkem=0"),
        (Stack::V1, "tlsmlkem=1"),
    ] {
        run(async {
            let (host, list) = ours(RUST).await;
            let mut go = Go::start_with(program, GO, stack, &[], &[("GODEBUG", debug)]);
            know(&list, GO, &go);
            go.open(RUST, "x", &json!({}));
            let stream = host.open_stream(peer(GO), "x", wide()).unwrap();
            stream.send("1");
            go.state("x", 1);
            until("the connection", || host.is_connected(&peer(GO))).await;
        });
    }
}
