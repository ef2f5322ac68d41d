//! Our host as a process that does what it is told, as the Go one does.

use crate::sys;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use knock_host::discovery::StaticList;
use knock_host::{Host, HostConfig, Limits, Stream};
use libp2p_core::Multiaddr;
use libp2p_identity::{Keypair, PeerId};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Messages that a sink counts together, as in Go.
const SINK_EVERY: u64 = 8;

/// Between two messages of a paced stream.
const PACE: Duration = Duration::from_millis(2);

pub(crate) async fn run(seed: u8, dial_interval: Duration) -> Result<()> {
    let keypair = Keypair::ed25519_from_bytes([seed; 32])?;
    let known = StaticList::new();
    let config = HostConfig::new(libp2p_knock::Config::new(&keypair)?)
        .with_listen_address("/ip4/127.0.0.1/tcp/0".parse()?)
        .with_dial_interval(dial_interval)
        .with_memory_budget(8 << 30);
    let host = Host::start(config, known.clone()).await?;
    let address = host.listen_addresses().pop().context("it listens")?.to_string();
    let port = address.split('/').nth(4).context("a port")?;
    say(&json!({"event": "ready", "peer_id": host.local_peer_id().to_string(), "listen": format!("127.0.0.1:{port}")}));

    let mut streams: HashMap<String, Arc<Stream>> = HashMap::new();
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = commands.next_line().await? {
        let command: Value = serde_json::from_str(&line)?;
        let text = |name: &str| command[name].as_str().context("a text");
        let number = |name: &str| command[name].as_u64().context("a number");
        match text("cmd")? {
            "know" => {
                let address: SocketAddr = text("addr")?.parse()?;
                let address: Multiaddr = format!("/ip4/{}/tcp/{}", address.ip(), address.port()).parse()?;
                known.add(text("peer")?.parse()?, address);
                continue;
            }
            "open" => {
                let peer: PeerId = text("peer")?.parse()?;
                let rate = |name: &str| command[name].as_f64().context("a rate");
                let limits = Limits::default()
                    .with_outgoing_buffer(usize::try_from(number("out")?)?)
                    .with_incoming_buffer(usize::try_from(number("in")?)?)
                    .with_max_message(usize::try_from(number("max")?)?)
                    .with_messages(rate("msg_rate")?, u32::try_from(number("msg_cap")?)?)
                    .with_bytes(rate("bytes_rate")?, u32::try_from(number("bytes_cap")?)?);
                let stream = host.open_stream(peer, text("name")?, limits)?;
                streams.insert(text("name")?.to_owned(), Arc::new(stream));
            }
            "sink" => {
                let stream = streams.get(text("name")?).context("open")?.clone();
                tokio::spawn(async move {
                    let mut sunk = 0_u64;
                    while stream.recv().await.is_some() {
                        sunk += 1;
                        if sunk.is_multiple_of(SINK_EVERY) {
                            stream.send(Bytes::from_static(&[0]));
                        }
                    }
                });
            }
            "blast" => {
                let stream = streams.get(text("name")?).context("open")?.clone();
                let (size, window, millis) = (number("size")?, number("window")?, number("millis")?);
                let size = usize::try_from(size)?;
                tokio::spawn(async move { blast(&stream, size, window, Duration::from_millis(millis)).await });
                continue;
            }
            "pace" => {
                let stream = streams.get(text("name")?).context("open")?.clone();
                let (gap, time) = (number("gap")?, number("millis")?);
                let (gap, time) = (Duration::from_millis(gap), Duration::from_millis(time));
                tokio::spawn(async move { pace(&stream, gap, time).await });
                continue;
            }
            "usage" => {
                say(&json!({"event": "usage", "seconds": sys::cpu().as_secs_f64(), "memory": sys::resident()?}));
                continue;
            }
            unknown => bail!("{unknown}?"),
        }
        say(&json!({"event": "done"}));
    }
    Ok(())
}

fn say(event: &Value) {
    println!("{event}");
}

/// Messages of `size` bytes for so long, at most `window` of them not yet counted by the sink.
async fn blast(stream: &Stream, size: usize, window: u64, time: Duration) {
    // One for all, as in Go: what is measured is the way, not the allocator.
    let payload = Bytes::from(vec![0; size]);
    let begun = Instant::now();
    let (mut sent, mut acked) = (0, 0);
    while begun.elapsed() < time {
        while sent < acked + window {
            stream.send(payload.clone());
            sent += 1;
        }
        if let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(1), stream.recv()).await {
            acked += SINK_EVERY;
        }
    }
    let done = json!({"event": "blast", "count": acked, "seconds": begun.elapsed().as_secs_f64()});
    // What is still under way is not the next one's.
    let rest = async { while stream.recv().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_millis(500), rest).await;
    say(&done);
}

/// A message of a byte at a steady pace, until nothing came back for `gap` and then something did, or for so long. What is measured
/// is the longest time without an acknowledgement.
async fn pace(stream: &Stream, gap: Duration, time: Duration) {
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while begun.elapsed() < time && longest < gap {
        stream.send(Bytes::from_static(&[0]));
        if let Ok(Some(_)) = tokio::time::timeout(PACE, stream.recv()).await {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            tokio::time::sleep(PACE).await;
        }
    }
    say(&json!({"event": "pace", "seconds": longest.as_secs_f64()}));
}
