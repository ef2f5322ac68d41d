//! What a crowd of peers that know a node's peer id can make it hold.
//!
//! `NODE_INSIDERS=400 cargo test -p examples --test node crowd -- --nocapture` says how much memory
//! the node takes for it.

use crate::process::{Dir, Running};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::Multiaddr;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _};
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::{Endpoint, Transport as _};
use libp2p::identity::Keypair;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Far more than anything here takes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(60);
const STREAMS: usize = 256;

/// What becomes of what an insider opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The node answered on a stream, and waits for the name of a protocol.
    HalfOpen,
    /// It reset or closed one.
    Refused,
    /// The connection is over.
    Closed,
}

/// A connection of its own, without a Swarm, on which no stream comes further than to the greeting.
/// Tells what it sees by its number.
async fn insider(number: usize, address: Multiaddr, streams: usize, seen: mpsc::UnboundedSender<(usize, Seen)>) {
    let key = Keypair::generate_ed25519();
    let mut transport = libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(&key).unwrap());
    let opts = || DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    // A node that has just started takes no knock of the same instant, and of a great crowd only
    // some at a time: those whom it does not take meet silence.
    let (_, muxer) = loop {
        let dial = transport.dial(address.clone(), opts()).unwrap();
        if let Ok(Ok(connected)) = tokio::time::timeout(Duration::from_secs(5), dial).await {
            break connected;
        }
    };
    let mut muxer = StreamMuxerBox::new(muxer);
    let mut tasks = JoinSet::new();
    let mut left = streams;
    loop {
        let opened = poll_fn(|cx| {
            if left > 0
                && let Poll::Ready(opened) = muxer.poll_outbound_unpin(cx)
            {
                return Poll::Ready(opened.map(Some));
            }
            if let Poll::Ready(theirs) = muxer.poll_inbound_unpin(cx) {
                // Of no interest, and dropped.
                return Poll::Ready(theirs.map(|_| None));
            }
            muxer.poll_unpin(cx).map_ok(|_| None)
        });
        match opened.await {
            Ok(Some(mut stream)) => {
                left -= 1;
                let seen = seen.clone();
                tasks.spawn(async move {
                    // The greeting of multistream-select, and then nothing.
                    let greeting = b"\x13/multistream/1.0.0\n";
                    let mut answer = [0; 20];
                    let half_open = async {
                        stream.write_all(greeting).await?;
                        stream.flush().await?;
                        stream.read_exact(&mut answer).await
                    };
                    let half_open = half_open.await.is_ok();
                    let _ = seen.send((number, if half_open { Seen::HalfOpen } else { Seen::Refused }));
                    std::future::pending::<()>().await;
                });
            }
            Ok(None) => {}
            Err(_) => {
                tasks.shutdown().await;
                let _ = seen.send((number, Seen::Closed));
                return;
            }
        }
    }
}

fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_insiders_gets_as_many_connections_and_streams_as_a_node_allows() {
    let wanted = std::env::var("NODE_INSIDERS").ok().and_then(|text| text.parse().ok());
    let (insiders, most) = wanted.map_or((20, 8), |insiders: usize| (insiders, 128.min(insiders)));
    let dir = Dir::new("crowd");
    let most_text = most.to_string();
    let args = ["--listen", "/ip4/127.0.0.1/tcp/0/tls", "--max-connections", &most_text];
    let mut node = Running::start(dir.path(), &args);
    let address: Multiaddr = node.address().parse().unwrap();
    let before = resident(node.id());

    let (sender, mut seen) = mpsc::unbounded_channel();
    let mut crowd = JoinSet::new();
    for number in 0..insiders {
        crowd.spawn(insider(number, address.clone(), STREAMS, sender.clone()));
    }
    let mut closed = vec![false; insiders];
    let mut half_open = vec![0; insiders];
    let mut refused = vec![0; insiders];
    // Of each connection that stays the node refuses all streams but as many as it allows.
    let counted = async {
        loop {
            let (number, what) = seen.recv().await.unwrap();
            match what {
                Seen::HalfOpen => half_open[number] += 1,
                Seen::Refused => refused[number] += 1,
                Seen::Closed => closed[number] = true,
            }
            // One whose handshake the node has refused does not know: it meets silence, and is not
            // served.
            let served = (0..insiders).filter(|at| !closed[*at] && half_open[*at] > 0);
            assert!(served.clone().count() <= most);
            if served.clone().count() == most && served.into_iter().all(|at| refused[at] >= STREAMS - 128) {
                break;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, counted).await.is_err() {
        let served = (0..insiders).filter(|at| !closed[*at] && half_open[*at] > 0);
        let fewest = served.clone().map(|at| refused[at]).min();
        let served = served.count();
        panic!("{served} of {insiders} are served, and of one no more than {fewest:?} streams were refused");
    }
    if let (Some(before), Some(after)) = (before, resident(node.id())) {
        println!("{insiders} insiders with {STREAMS} streams each: {before} KiB before, {after} KiB after");
    }
    // And it goes on: with the crowd gone a friend finds a place, once the node has seen that.
    crowd.shutdown().await;
    let found = async {
        loop {
            let (sender, mut seen) = mpsc::unbounded_channel();
            crowd.spawn(insider(0, address.clone(), 1, sender));
            if seen.recv().await == Some((0, Seen::HalfOpen)) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("a place for a friend");
}
