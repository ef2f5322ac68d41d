//! A stranger at the door: opens a TCP connection, sends what no knock begins with, and counts what comes back.

use crate::random;
use crate::transfer::hex;
use anyhow::{Context as _, Result, bail};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde_json::json;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes a probe sends.
pub(crate) const LENGTH: usize = 1024;
/// How long the TCP connection may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// What a stranger learnt.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) sent: usize,
    pub(crate) received: usize,
    /// The first bytes of it.
    pub(crate) start: Vec<u8>,
    pub(crate) after: Duration,
    /// How the far side ended the connection, if it did.
    pub(crate) closed: Option<&'static str>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, .. } = self;
        write!(
            f,
            "sent {sent} bytes, received {received} in {:.1} s",
            self.after.as_secs_f64()
        )?;
        if let Some(how) = self.closed {
            write!(f, ": then the far side {how} the connection")?;
        }
        Ok(())
    }
}

/// `prefix`, and after it random bytes up to [`LENGTH`].
pub(crate) fn message(prefix: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    random::Bytes(random::seed()).fill(&mut bytes);
    match prefix {
        // No protocol in use starts with a byte like this: neither text, TLS, a length, nor a version number.
        [] => bytes[0] |= 0xe0,
        prefix => bytes[..prefix.len()].copy_from_slice(prefix),
    }
    bytes
}

/// A connection on which nothing was said yet.
#[derive(Debug)]
pub(crate) struct Connected(TcpStream);

pub(crate) async fn connect(host: &str, port: u16) -> Result<Connected> {
    let connecting = timeout(CONNECT, TcpStream::connect((host, port))).await;
    let socket = connecting
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .with_context(|| format!("cannot connect to {host} port {port}"))?;
    Ok(Connected(socket))
}

impl Connected {
    /// Sends `message` and listens for `patience`, or until the far side has closed.
    pub(crate) async fn probe(self, message: &[u8], patience: Duration) -> Finding {
        let Self(mut socket) = self;
        let start = Instant::now();
        let mut finding = Finding {
            sent: 0,
            received: 0,
            start: Vec::new(),
            after: patience,
            closed: None,
        };
        if socket.write_all(message).await.is_err() {
            finding.closed = Some("broke");
        } else {
            finding.sent = message.len();
        }
        let mut buffer = [0; 4096];
        while finding.closed.is_none() {
            let left = patience.saturating_sub(start.elapsed());
            match timeout(left, socket.read(&mut buffer)).await {
                Err(_) => break,
                Ok(Ok(0)) => finding.closed = Some("closed"),
                Ok(Ok(n)) => {
                    finding.received += n;
                    let room = 32_usize.saturating_sub(finding.start.len()).min(n);
                    finding.start.extend_from_slice(&buffer[..room]);
                }
                Ok(Err(_)) => finding.closed = Some("reset"),
            }
        }
        finding.after = start.elapsed();
        finding
    }
}

/// What was found at `address`, or why nothing was, for programs. The help lists the keys.
pub(crate) fn json(address: &str, found: &Result<Finding, String>) -> serde_json::Value {
    let finding = found.as_ref().ok();
    let outcome = match finding {
        Some(Finding { received: 0, .. }) => "silent",
        Some(_) => "answered",
        None => "unreachable",
    };
    json!({
        "address": address,
        "outcome": outcome,
        "sent": finding.map_or(0, |finding| finding.sent),
        "received": finding.map_or(0, |finding| finding.received),
        "seconds": finding.map_or(0.0, |finding| finding.after.as_secs_f64()),
        "begins_with": finding.map_or_else(String::new, |finding| hex(&finding.start)),
        "ended": finding.and_then(|finding| finding.closed),
        "error": found.as_ref().err(),
    })
}

/// Host and port of a multiaddr, whatever follows the port, or of `host:port`.
pub(crate) fn target(address: &str) -> Result<(String, u16)> {
    if address.starts_with('/') {
        let parsed: Multiaddr = address
            .parse()
            .with_context(|| format!("{address} is not a multiaddr"))?;
        let mut parts = parsed.iter();
        let host = match parts.next() {
            Some(Protocol::Ip4(ip)) => ip.to_string(),
            Some(Protocol::Ip6(ip)) => ip.to_string(),
            Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => name.into_owned(),
            _ => bail!("{address} does not start with /ip4, /ip6 or /dns"),
        };
        let Some(Protocol::Tcp(port)) = parts.next() else {
            bail!("{address} is not a TCP address");
        };
        return Ok((host, port));
    }
    let form = || format!("{address} is neither a multiaddr nor host:port, such as 127.0.0.1:4001 or [::1]:4001");
    let (host, port) = address.rsplit_once(':').with_context(form)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        bail!(form());
    }
    Ok((host.to_owned(), port.parse().with_context(form)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds_are_understood() {
        for (written, host, port) in [
            ("127.0.0.1:4001", "127.0.0.1", 4001),
            ("[::1]:1", "::1", 1),
            ("example.org:443", "example.org", 443),
            ("/ip4/127.0.0.1/tcp/4001/tls", "127.0.0.1", 4001),
            ("/ip6/::1/tcp/4001", "::1", 4001),
            ("/dns4/example.org/tcp/4001/tls", "example.org", 4001),
        ] {
            assert_eq!(target(written).unwrap(), (host.to_owned(), port));
        }
        for wrong in [
            "",
            "example.org",
            ":1",
            "host:",
            "host:70000",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/1",
            "/x",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
