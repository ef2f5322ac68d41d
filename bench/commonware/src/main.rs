//! A commonware-p2p network of two, of which this process is one: commands on standard input, events on standard output, one JSON
//! object per line, as `bench host`'s other children. Arguments: the seed, 1 or 2, and the milliseconds between two connections
//! with a peer. There is one stream, a channel that is registered before the network starts, as it has to be.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use commonware_cryptography::{ChaCha20Poly1305, Signer as _, ed25519};
use commonware_p2p::authenticated::lookup::{self, Network};
use commonware_p2p::{Address, AddressableManager as _, Receiver as _, Recipients, Sender as _};
use commonware_runtime::{Quota, Runner as _, Spawner as _, Supervisor as _, tokio as runtime};
use commonware_stream::cups::{self, Cups};
use commonware_stream::sake::{self, Sake};
use commonware_utils::ordered::Map;
use commonware_utils::{NZU32, NZUsize};
use serde_json::{Value, json};
use std::io::BufRead as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};

/// Messages that a sink counts together.
const SINK_EVERY: u64 = 8;

/// Between two messages of a paced stream.
const PACE: Duration = Duration::from_millis(2);

/// Nobody is there: whom we do not know the address of dials us.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// What has come in.
#[derive(Default)]
struct Seen {
    sink: AtomicBool,
    acked: AtomicU64,
    more: Notify,
}

fn key(seed: u64) -> ed25519::PrivateKey {
    ed25519::PrivateKey::from_seed(seed)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let seed: u64 = args.next().context("a seed")?.parse()?;
    let interval = Duration::from_millis(args.next().context("milliseconds")?.parse()?);
    let other = 3 - seed;
    // It does not tell which port it got.
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let signer = key(seed);
    let handshake = Cups::<_, ChaCha20Poly1305>::new(
        Sake {
            signer: signer.clone(),
            synchrony_bound: Duration::from_secs(5),
            max_handshake_age: Duration::from_secs(10),
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let mut config = lookup::Config::local(handshake, b"bench", listen, NZUsize!(2), 1 << 20, NZUsize!(4096));
    config.peer_connection_cooldown = interval;
    let (commands, mut told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if commands.send(line).is_err() {
                break;
            }
        }
    });
    let runner = runtime::Runner::new(runtime::Config::default().with_worker_threads(2));
    runner.start(|context| async move {
        let (mut network, mut oracle) = Network::new(context.child("network"), config);
        // More than anybody sends; the burst is what a mailbox holds.
        let quota = Quota::per_second(NZU32!(50_000_000)).allow_burst(NZU32!(65_536));
        let (sender, mut receiver) = network.register(0, quota);
        network.start();
        say(&json!({"event": "ready", "peer_id": seed.to_string(), "listen": listen.to_string()}));

        let seen = Arc::new(Seen::default());
        let them = key(other).public_key();
        let taking = seen.clone();
        let (mut back, to) = (sender.clone(), them.clone());
        context.child("receive").spawn(move |_| async move {
            let mut sunk = 0_u64;
            while receiver.recv().await.is_ok() {
                if taking.sink.load(Ordering::Relaxed) {
                    sunk += 1;
                    if sunk.is_multiple_of(SINK_EVERY) {
                        back.send(Recipients::One(to.clone()), Bytes::from_static(&[0]), false);
                    }
                } else {
                    taking.acked.fetch_add(SINK_EVERY, Ordering::Relaxed);
                    taking.more.notify_one();
                }
            }
        });
        let mut known = NOWHERE;
        while let Some(line) = told.recv().await {
            let command: Value = serde_json::from_str(&line)?;
            let text = |name: &str| command[name].as_str().context("a text");
            let number = |name: &str| command[name].as_u64().context("a number");
            match text("cmd")? {
                "know" => known = text("addr")?.parse()?,
                "open" => {
                    let peers: Map<_, Address> = [(signer.public_key(), listen.into()), (them.clone(), known.into())]
                        .try_into()
                        .ok()
                        .context("two peers")?;
                    let _ = oracle.track(0, peers);
                    // The first message finds somebody once they are connected.
                    let mut first = sender.clone();
                    while known != NOWHERE
                        && first
                            .send(Recipients::One(them.clone()), Bytes::from_static(&[0]), false)
                            .is_empty()
                    {
                        tokio::time::sleep(PACE).await;
                    }
                    say(&json!({"event": "done"}));
                }
                "sink" => {
                    seen.sink.store(true, Ordering::Relaxed);
                    say(&json!({"event": "done"}));
                }
                "blast" => {
                    let (size, window, millis) = (number("size")?, number("window")?, number("millis")?);
                    let (mut out, to, seen) = (sender.clone(), them.clone(), seen.clone());
                    context.child("blast").spawn(move |_| async move {
                        let payload = Bytes::from(vec![0; size as usize]);
                        let mut send = || !out.send(Recipients::One(to.clone()), payload.clone(), false).is_empty();
                        seen.acked.store(0, Ordering::Relaxed);
                        let begun = Instant::now();
                        let mut sent = 0;
                        while begun.elapsed() < Duration::from_millis(millis) {
                            while sent < seen.acked.load(Ordering::Relaxed) + window && send() {
                                sent += 1;
                            }
                            // Its send buffer may be full although nothing is under way.
                            let _ = tokio::time::timeout(Duration::from_millis(1), seen.more.notified()).await;
                        }
                        let count = seen.acked.load(Ordering::Relaxed);
                        let seconds = begun.elapsed().as_secs_f64();
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        say(&json!({"event": "blast", "count": count, "seconds": seconds}));
                    });
                }
                "pace" => {
                    let (gap, millis) = (number("gap")?, number("millis")?);
                    let (mut out, to, seen) = (sender.clone(), them.clone(), seen.clone());
                    context.child("pace").spawn(move |_| async move {
                        let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
                        while begun.elapsed() < Duration::from_millis(millis) && longest < Duration::from_millis(gap) {
                            out.send(Recipients::One(to.clone()), Bytes::from_static(&[0]), false);
                            if tokio::time::timeout(PACE, seen.more.notified()).await.is_ok() {
                                longest = longest.max(last.elapsed());
                                last = Instant::now();
                                tokio::time::sleep(PACE).await;
                            }
                        }
                        say(&json!({"event": "pace", "seconds": longest.as_secs_f64()}));
                    });
                }
                "usage" => {
                    let used = processor_seconds();
                    say(&json!({"event": "usage", "seconds": used, "memory": resident()?}));
                }
                unknown => bail!("{unknown}?"),
            }
        }
        Ok(())
    })
}

fn say(event: &Value) {
    println!("{event}");
}

/// CPU of this process.
fn processor_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.context("VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
