//! What people learn who know alice's port and not her peer id.

use super::PATIENCE;
use super::cast::Player;
use super::report::Detail;
use crate::link::Event;
use crate::probe::{self, Finding};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use libp2p::Multiaddr;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// A record of the type handshake with a ClientHello of TLS 1.2 or 1.3.
const TLS: &[u8] = &[0x16, 3, 1, 3, 0xfb, 1, 0, 3, 0xf7, 3, 3];
/// How every stock libp2p connection over TCP begins.
const MULTISTREAM: &[u8] = b"\x13/multistream/1.0.0\n\x07/noise\n";
/// The version of a knock, and then no knock.
const KNOCK: &[u8] = &[2];

/// Knocks at `port` in every way that is no knock, at the same time.
pub(super) async fn probes(port: u16) -> Result<Vec<(&'static str, Finding)>> {
    let variants = [
        ("random bytes", probe::message(&[])),
        ("an HTTP request", probe::message(HTTP)),
        ("a TLS ClientHello", probe::message(TLS)),
        ("libp2p multistream", probe::message(MULTISTREAM)),
        ("a knock with noise in it", probe::message(KNOCK)),
        ("nothing at all", Vec::new()),
    ];
    try_join_all(variants.map(|(what, bytes)| async move {
        let connected = probe::connect("127.0.0.1", port).await?;
        Ok((what, connected.probe(&bytes, PATIENCE).await))
    }))
    .await
}

pub(super) async fn nothing(probes: JoinHandle<Result<Vec<(&'static str, Finding)>>>) -> Result<Detail> {
    let findings = probes.await??;
    let mut total = 0;
    let mut detail = Vec::new();
    for (what, finding) in &findings {
        total += finding.received;
        detail.push((
            format!("{what:26}{finding}"),
            json!({ "what": what, "sent": finding.sent, "received": finding.received }),
        ));
    }
    ensure!(total == 0, "alice answered strangers: {findings:?}");
    let (lines, fields): (Vec<_>, Vec<_>) = detail.into_iter().unzip();
    let detail = Detail::new("0 bytes come back")
        .field("received", total)
        .field("probes", fields);
    Ok(lines.into_iter().fold(detail, Detail::line))
}

/// A relay in front of a port, for one connection, that counts what passes.
#[derive(Debug)]
pub(super) struct Tap {
    port: u16,
    /// Bytes to the port and back from it.
    counted: JoinHandle<Result<(u64, u64)>>,
}

impl Tap {
    pub(super) fn address(&self) -> Result<Multiaddr> {
        Ok(format!("/ip4/127.0.0.1/tcp/{}", self.port).parse()?)
    }
}

pub(super) async fn tap(target: u16) -> Result<Tap> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let counted = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await?;
        let mut far = TcpStream::connect(("127.0.0.1", target)).await?;
        let (mut from_near, mut to_near) = near.split();
        let (mut from_far, mut to_far) = far.split();
        let (mut sent, mut received) = (0, 0);
        let (mut there, mut back) = ([0; 4096], [0; 4096]);
        // Until either side has closed.
        loop {
            tokio::select! {
                n = from_near.read(&mut there) => match n? {
                    0 => break,
                    n => {
                        to_far.write_all(&there[..n]).await?;
                        sent += n as u64;
                    }
                },
                n = from_far.read(&mut back) => match n? {
                    0 => break,
                    n => {
                        to_near.write_all(&back[..n]).await?;
                        received += n as u64;
                    }
                },
            }
        }
        Ok((sent, received))
    });
    Ok(Tap { port, counted })
}

/// Carol has dialled; she must fail, having said something and heard nothing.
pub(super) async fn stock_dial(carol: &mut Player, alice: &Player, tap: Tap) -> Result<Detail> {
    let why = carol.wait(|event| match event {
        Event::DialFailed { why } => Some(why.clone()),
        _ => None,
    });
    let why = why.await?;
    let (sent, received) = tap.counted.await?.context("the relay in between")?;
    ensure!(sent > 0, "carol has not said anything: {why}");
    ensure!(received == 0, "carol was answered {received} bytes");
    ensure!(
        !carol.link.peers().contains_key(&alice.id),
        "carol is connected to alice"
    );
    Ok(Detail::new("fails, and 0 bytes come back")
        .field("sent", sent)
        .field("received", received)
        .field("error", why))
}
