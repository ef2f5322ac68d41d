//! A chat between two terminals, over one stream of a `knock_host::Host`.
//!
//! ```text
//! cargo run -p examples --bin chat -- alice 4001 bob@127.0.0.1:4002
//! cargo run -p examples --bin chat -- bob 4002 alice@127.0.0.1:4001
//! ```
//!
//! Start them in any order, stop and start either: what was typed in between arrives when both are there.

use anyhow::{Context as _, Result};
use clap::Parser;
use knock_host::discovery::StaticList;
use knock_host::{Host, HostConfig, Limits, Sent};
use libp2p::identity::Keypair;
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::mpsc;

/// Lines that wait while the other is away; the oldest makes room for the next.
const WAITING: usize = 100;
/// The longest line in bytes. A terminal gives 4096 at most, a pipe any number.
const LONGEST: usize = 64 * 1024;

/// A chat between two terminals. /quit or Ctrl-D leaves.
#[derive(Debug, Parser)]
#[command(name = "chat", version)]
struct Cli {
    /// Who you are. Your key is made from it, and so can be anybody's: to try things out, not to keep secrets.
    name: String,
    /// Where to listen. 0 for any port.
    port: u16,
    /// Whom to talk to, and where: bob@127.0.0.1:4002.
    other: Other,
}

#[derive(Debug, Clone)]
struct Other {
    name: String,
    address: SocketAddr,
}

impl FromStr for Other {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text.split_once('@').ok_or("not of the form bob@127.0.0.1:4002")?;
        Ok(Self {
            name: name.to_owned(),
            address: address.parse().map_err(|error| format!("{address}: {error}"))?,
        })
    }
}

fn key(name: &str) -> Result<Keypair> {
    let seed: [u8; 32] = Sha256::digest(format!("chat example: {name}")).into();
    Ok(Keypair::ed25519_from_bytes(seed)?)
}

/// What the other has typed, without what could move the cursor, colour the screen or turn the
/// direction of writing.
fn printable(message: &[u8]) -> String {
    let harmless = |c: char| {
        !c.is_control() && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text = String::from_utf8_lossy(message);
    text.chars().map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect()
}

/// What is typed, from a thread of its own: whoever waits for a line waits for a person.
fn lines() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if send.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let peer = key(&cli.other.name)?.public().to_peer_id();
    let (ip, port) = (cli.other.address.ip(), cli.other.address.port());
    let known = StaticList::from_iter([(
        peer,
        libp2p::Multiaddr::from(ip).with(libp2p::multiaddr::Protocol::Tcp(port)),
    )]);
    let config = HostConfig::new(libp2p_knock::Config::new(&key(&cli.name)?)?)
        .with_listen_address(format!("/ip4/0.0.0.0/tcp/{}", cli.port).parse()?)
        .with_dial_interval(Duration::from_secs(1));
    let host = Host::start(config, known).await.context("cannot start")?;
    // What waited at one end arrives at the other in one go.
    let limits = Limits::default()
        .with_outgoing_buffer(WAITING)
        .with_incoming_buffer(WAITING)
        .with_max_message(LONGEST);
    let stream = host.open_stream(peer, "chat", limits)?;
    for address in host.listen_addresses() {
        println!("* {} listens on {address}", cli.name);
    }
    println!(
        "* waiting for {}, who gets the last {WAITING} lines that you type until then",
        cli.other.name
    );
    println!("* /quit or Ctrl-D to leave");

    let mut lines = lines();
    let mut watch = tokio::time::interval(Duration::from_millis(200));
    let mut there = false;
    loop {
        tokio::select! {
            message = stream.recv() => match message {
                Some(message) => println!("{}: {}", cli.other.name, printable(&message)),
                None => break,
            },
            line = lines.recv() => match line.as_deref().map(str::trim) {
                None | Some("/quit" | "/exit") => break,
                Some("") => {}
                Some(line) if line.starts_with('/') => {
                    let word = line.split_whitespace().next().unwrap_or(line);
                    println!("! there is no {word}: /quit or Ctrl-D to leave");
                }
                Some(line) if line.len() > LONGEST => {
                    println!("! not sent: {} bytes, expected at most {LONGEST}", line.len());
                }
                Some(line) => {
                    if stream.send(line) == Sent::Displaced {
                        println!("! not sent: an older line, as {WAITING} wait already");
                    }
                }
            },
            _ = watch.tick() => {
                let now = host.is_connected(&peer);
                if now != there {
                    println!("* {} is {}", cli.other.name, if now { "here" } else { "away" });
                }
                there = now;
            }
        }
    }
    host.close().await;
    Ok(())
}
