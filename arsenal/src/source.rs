//! Where connections come from. On loopback an attacker has 16 million addresses: each 127.a.b.0/24 stands for one
//! network, since a listener that counts by source counts by such prefixes.

use crate::rng::Rng;
use futures::future::BoxFuture;
use libp2p_core::multiaddr::Protocol;
use libp2p_core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::{Multiaddr, Transport};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

/// The most prefixes that one [`Sources`] has.
pub const MOST_PREFIXES: u16 = 4096;

/// Hosts of a prefix that are used.
const HOSTS: usize = 250;

/// A block of source prefixes. Blocks of different tools do not overlap, so that none spends another's budget.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    block: u8,
    prefixes: u16,
}

impl Sources {
    /// 127.32.0.0 and up, for probes.
    pub fn probes(prefixes: u16) -> Self {
        Self::new(32, prefixes)
    }

    /// 127.64.0.0 and up, for floods.
    pub fn flood(prefixes: u16) -> Self {
        Self::new(64, prefixes)
    }

    /// 127.96.0.0 and up, for sockets that say nothing.
    pub fn half_open(prefixes: u16) -> Self {
        Self::new(96, prefixes)
    }

    /// 127.128.0.0 and up, for honest dialers.
    pub fn honest(prefixes: u16) -> Self {
        Self::new(128, prefixes)
    }

    fn new(block: u8, prefixes: u16) -> Self {
        Self {
            block,
            prefixes: prefixes.clamp(1, MOST_PREFIXES),
        }
    }

    /// How many prefixes.
    pub fn prefixes(&self) -> u16 {
        self.prefixes
    }

    /// A host of the prefix with that number, which wraps round.
    pub fn host(&self, prefix: u16, host: usize) -> Ipv4Addr {
        let [high, low] = (prefix % self.prefixes).to_be_bytes();
        // At most 250, and 4096 prefixes are 16 values of `high`.
        Ipv4Addr::new(127, self.block + high, low, (host % HOSTS) as u8 + 1)
    }

    /// Any host of any prefix.
    pub fn pick(&self, rng: &mut Rng) -> Ipv4Addr {
        let prefix = rng.below(usize::from(self.prefixes)) as u16;
        self.host(prefix, rng.below(HOSTS))
    }
}

/// Connects from `source`, where one is given.
///
/// # Errors
///
/// What the kernel says, of the bind or of the connection.
pub async fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A libp2p transport that dials TCP from one source address and cannot listen. For an honest dialer that is to seem to
/// come from somewhere.
#[derive(Debug, Clone, Copy)]
pub struct BoundTcp(pub IpAddr);

impl Transport for BoundTcp {
    type Output = Compat<TcpStream>;
    type Error = io::Error;
    type ListenerUpgrade = futures::future::Pending<io::Result<Self::Output>>;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, address: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let source = self.0;
        let Some(target) = socket_addr(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        Ok(Box::pin(
            async move { Ok(connect(target, Some(source)).await?.compat()) },
        ))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Poll::Pending
    }
}

/// The IP address and TCP port that a multiaddress begins with.
pub fn socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn prefixes_are_as_many_as_asked_for_and_stay_in_their_block() {
        for count in [1, 16, 4096] {
            let sources = Sources::flood(count);
            let mut rng = Rng::new(1);
            let prefix = |ip: Ipv4Addr| [ip.octets()[1], ip.octets()[2]];
            let seen: HashSet<_> = (0..count).map(|k| prefix(sources.host(k, 0))).collect();
            assert_eq!(seen.len(), usize::from(count));
            let stays = (0..10_000).all(|_| seen.contains(&prefix(sources.pick(&mut rng))));
            assert!(stays && seen.iter().all(|[a, _]| (64..80).contains(a)));
        }
    }
}
