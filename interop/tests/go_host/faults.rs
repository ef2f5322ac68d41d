//! What goes wrong, and that it goes right again.

use crate::go::{Go, STACKS, Stack, config, in_time, know, ours, ours_with, peer, program, run, until, wide};
use knock_host::discovery::StaticList;
use knock_host::{Host, HostConfig, Stream};
use serde_json::json;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

const RUST: u8 = 1;
const GO: u8 = 2;

/// Sends from both ends until each has heard the other: what is sent while a connection breaks may be lost.
async fn until_both_hear(go: &mut Go, stream: &Stream, name: &str, texts: &mut u64) {
    go.tell(&json!({"cmd": "state", "name": name, "until": *texts + 1}));
    let heard = async {
        loop {
            stream.send("from us");
            let seen = go.process.wait_for(
                |event| event["event"] == "state" && event["name"] == name,
                Duration::from_millis(100),
            );
            if let Ok(state) = seen {
                *texts = state["count"].as_u64().unwrap();
                break;
            }
            tokio::task::yield_now().await;
        }
        loop {
            go.text(name, "from go");
            if let Ok(message) = tokio::time::timeout(Duration::from_millis(100), stream.recv()).await {
                assert_eq!(message.as_deref(), Some(&b"from go"[..]));
                break;
            }
        }
    };
    in_time(heard).await;
}

#[test]
fn a_stream_goes_on_when_go_was_killed_and_comes_back() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            let (host, list) = ours(RUST).await;
            let stream = host.open_stream(peer(GO), "x", wide()).unwrap();
            for _ in 0..3 {
                let mut go = Go::start(program, GO, stack);
                know(&list, GO, &go);
                go.open(RUST, "x", &json!({}));
                until_both_hear(&mut go, &stream, "x", &mut 0).await;
                drop(go);
                until("the loss is noticed", || !host.is_connected(&peer(GO))).await;
            }
        });
    }
}

#[test]
fn a_stream_goes_on_when_we_were_gone_and_come_back() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            let mut go = Go::start(program, GO, stack);
            go.open(RUST, "x", &json!({}));
            let mut texts = 0;
            for round in 0..3 {
                let (host, list) = ours(RUST).await;
                // Whoever finds the other first.
                if round != 1 {
                    know(&list, GO, &go);
                }
                if round != 0 {
                    go.know(&host);
                }
                let stream = host.open_stream(peer(GO), "x", wide()).unwrap();
                until_both_hear(&mut go, &stream, "x", &mut texts).await;
                if round == 1 {
                    host.close().await;
                }
            }
        });
    }
}

/// How often both ends dial at the same time. `KNOCK_HOST_DIALS=200` for the long form.
fn rounds() -> usize {
    let set = std::env::var("KNOCK_HOST_DIALS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(20)
}

#[test]
fn two_that_dial_each_other_settle_every_time() {
    // W1, with the end that keeps what it saw last.
    let Some(program) = program() else { return };
    for (stack, ours_is) in [(Stack::V1, RUST), (Stack::New, RUST), (Stack::V1, GO), (Stack::New, GO)] {
        // Either end may have the larger key.
        let gos = RUST + GO - ours_is;
        run(async {
            let list = StaticList::new();
            let host = ours_with(config(ours_is), &list).await;
            let mut go = Go::start(program, gos, stack);
            know(&list, gos, &go);
            go.know(&host);
            for _ in 0..rounds() {
                // Both open at once, and both dial at once.
                let opening = go.opening("open", ours_is, "x", &json!({}));
                go.tell(&opening);
                let stream = host.open_stream(peer(gos), "x", wide()).unwrap();
                go.wait("done", "x");
                until_both_hear(&mut go, &stream, "x", &mut 0).await;
                drop(stream);
                go.tell(&json!({"cmd": "close", "name": "x"}));
                go.wait("done", "x");
            }
        });
    }
}

async fn nothing_comes_of(host: &Host, go: &mut Go, seed: u8, why: &str) {
    let before = host.counters().inbound_dials.get();
    until("go tries", || host.counters().inbound_dials.get() >= before + 2).await;
    assert!(!host.is_connected(&peer(seed)), "{why}");
    assert_eq!(go.metric("ragep2p_peer_conn_established_inbound_total"), 0.0, "{why}");
}

#[test]
fn a_peer_we_have_no_stream_to_is_not_let_in() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            let (host, _) = ours(RUST).await;
            let mut go = Go::start(program, GO, stack);
            go.know(&host);
            go.open(RUST, "x", &json!({}));
            nothing_comes_of(&host, &mut go, GO, "unknown").await;
        });
    }
}

#[test]
fn a_host_with_another_key_than_the_one_looked_for_is_not_taken_for_it() {
    let Some(program) = program() else { return };
    for stack in STACKS {
        run(async {
            // Go looks for key 3 and finds ours; we look for key 4 and find Go's.
            let (host, list) = ours(RUST).await;
            let mut go = Go::start(program, GO, stack);
            go.tell(&json!({"cmd": "know", "peer": peer(3).to_string(), "addr": address(&host)}));
            go.open(3, "x", &json!({}));
            let _known = host.open_stream(peer(GO), "x", wide()).unwrap();
            nothing_comes_of(&host, &mut go, GO, "wrong key").await;

            let port = go.listen.rsplit(':').next().unwrap();
            list.add(peer(4), format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
            let _wrong = host.open_stream(peer(4), "x", wide()).unwrap();
            nothing_comes_of(&host, &mut go, 4, "wrong key").await;
        });
    }
}

fn address(host: &Host) -> String {
    let address = host.listen_addresses().pop().unwrap().to_string();
    format!("127.0.0.1:{}", address.split('/').nth(4).unwrap())
}

/// The warnings of this process about peers that are not reached: the peer and the reason.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<[String; 2]>>>);

impl Warnings {
    fn of(&self, peer: &str) -> Vec<String> {
        let warnings = self.0.lock().unwrap();
        let about = warnings.iter().filter(|[of, _]| of == peer);
        about.map(|[_, reason]| reason.clone()).collect()
    }
}

/// The fields `peer` and `reason`.
#[derive(Default)]
struct About([String; 2]);

impl Visit for About {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "peer" => self.0[0] = format!("{value:?}"),
            "reason" => self.0[1] = format!("{value:?}"),
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let of = event.metadata();
        if *of.level() == Level::WARN && of.target() == "knock_host::unreached" {
            let mut about = About::default();
            event.record(&mut about);
            self.0.lock().unwrap().push(about.0);
        }
    }
}

#[test]
fn a_host_that_forgot_the_older_version_says_that_go_wants_it() {
    let Some(program) = program() else { return };
    let warnings = Warnings::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(warnings.clone())).unwrap();
    // No other test of this process has these keys.
    for (stack, go_seed, seed) in [(Stack::V1, 71, 72), (Stack::New, 73, 74)] {
        run(async {
            let mut go = Go::start(program, go_seed, stack);
            go.open(seed, "x", &json!({}));
            let knock = libp2p_knock::Config::new(&crate::go::keypair(seed)).unwrap();
            let forgot = HostConfig::new(knock)
                .with_listen_address("/ip4/127.0.0.1/tcp/0".parse().unwrap())
                .with_dial_interval(Duration::from_millis(200));
            let list = StaticList::new();
            let host = ours_with(forgot, &list).await;
            know(&list, go_seed, &go);
            let stream = host.open_stream(peer(go_seed), "x", wide()).unwrap();
            let of = peer(go_seed).to_string();
            until("a warning", || !warnings.of(&of).is_empty()).await;
            let reason = &warnings.of(&of)[0];
            assert!(reason.contains("was not answered: the other end "), "{reason}");
            let text = "as Go's ragep2p does (`Config::ragep2p_compatible`)";
            assert!(reason.contains(text), "{reason}");
            assert!(!host.is_connected(&peer(go_seed)));
            drop(stream);
        });
    }
}
