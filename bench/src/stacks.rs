//! Every stack that is measured, behind one interface: listen, dial, open a substream.

mod libp2p;
mod raw;
mod raw_tls;
mod tls_fresh;

use crate::service::Counters;
use anyhow::Result;
use clap::ValueEnum;
use futures::future::{Either, TryFutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p_identity::PeerId;
use libp2p_knock::KeyExchange;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A stack. To add one, add a variant here, its names in [`Kind::label`] and [`Kind::about`], and how it is made in
/// [`Kind::endpoint`]; every measurement then includes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Kind {
    Knock,
    KnockV2,
    KnockX25519,
    KnockFastOpen,
    KnockFastOpenHybrid,
    Noise,
    Tls,
    TlsShipped,
    Quic,
    RawTls,
    RawTlsX25519,
    RawTcp,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Knock,
        Self::KnockV2,
        Self::KnockX25519,
        Self::KnockFastOpen,
        Self::KnockFastOpenHybrid,
        Self::Noise,
        Self::Tls,
        Self::TlsShipped,
        Self::Quic,
        Self::RawTls,
        Self::RawTlsX25519,
        Self::RawTcp,
    ];

    /// What `--only` takes and the JSON holds.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Knock => "knock",
            Self::KnockV2 => "knock-v2",
            Self::KnockX25519 => "knock-x25519",
            Self::KnockFastOpen => "knock-fast-open",
            Self::KnockFastOpenHybrid => "knock-fast-open-hybrid",
            Self::Noise => "noise",
            Self::Tls => "tls",
            Self::TlsShipped => "tls-shipped",
            Self::Quic => "quic",
            Self::RawTls => "raw-tls",
            Self::RawTlsX25519 => "raw-tls-x25519",
            Self::RawTcp => "raw-tcp",
        }
    }

    /// What the tables say.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Knock => "**knock** (X25519MLKEM768)",
            Self::KnockV2 => "**knock** version 2 (X25519MLKEM768)",
            Self::KnockX25519 => "**knock**, X25519 alone",
            Self::KnockFastOpen => "**knock**, X25519, TCP Fast Open",
            Self::KnockFastOpenHybrid => "**knock** (X25519MLKEM768), TCP Fast Open",
            Self::Noise => "libp2p tcp+noise+yamux",
            Self::Tls => "libp2p tcp+tls+yamux, no resumption",
            Self::TlsShipped => "libp2p tcp+tls+yamux, as shipped",
            Self::Quic => "libp2p quic",
            Self::RawTls => "raw TCP + mutual TLS, X25519MLKEM768",
            Self::RawTlsX25519 => "raw TCP + mutual TLS, X25519",
            Self::RawTcp => "raw TCP",
        }
    }

    /// One node: a fresh identity, its configuration and its transport.
    pub(crate) fn endpoint(self) -> Result<Endpoint> {
        Ok(match self {
            Self::Knock => Endpoint::Libp2p(libp2p::knock(&[])?),
            Self::KnockV2 => Endpoint::Libp2p(libp2p::knock_v2()?),
            Self::KnockX25519 => Endpoint::Libp2p(libp2p::knock(&[KeyExchange::X25519])?),
            Self::KnockFastOpen => Endpoint::Libp2p(libp2p::knock_fast_open(&[KeyExchange::X25519])?),
            Self::KnockFastOpenHybrid => Endpoint::Libp2p(libp2p::knock_fast_open(&[KeyExchange::X25519MlKem768])?),
            Self::Noise => Endpoint::Libp2p(libp2p::noise()?),
            Self::Tls => Endpoint::Libp2p(libp2p::tls_without_resumption()?),
            Self::TlsShipped => Endpoint::Libp2p(libp2p::tls_as_shipped()?),
            Self::Quic => Endpoint::Libp2p(libp2p::quic()),
            Self::RawTls => Endpoint::Raw(raw::Endpoint::tls(rustls::NamedGroup::X25519MLKEM768)?),
            Self::RawTlsX25519 => Endpoint::Raw(raw::Endpoint::tls(rustls::NamedGroup::X25519)?),
            Self::RawTcp => Endpoint::Raw(raw::Endpoint::tcp()),
        })
    }

    /// Whether one connection carries many substreams.
    pub(crate) fn is_muxed(self) -> bool {
        !matches!(self, Self::RawTls | Self::RawTlsX25519 | Self::RawTcp)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One byte stream, whatever is below it.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) type Stream = Box<dyn Io>;

/// Where a listener can be reached. Survives a trip through another process's command line.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) socket: SocketAddr,
    /// Of the libp2p stacks.
    pub(crate) peer: Option<PeerId>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.socket)?;
        self.peer.map_or(Ok(()), |peer| write!(f, "@{peer}"))
    }
}

impl std::str::FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (socket, peer) = match text.split_once('@') {
            Some((socket, peer)) => (socket, Some(peer.parse()?)),
            None => (text, None),
        };
        let socket = socket.parse()?;
        Ok(Self { socket, peer })
    }
}

/// A node before it listens or dials.
pub(crate) enum Endpoint {
    Libp2p(libp2p::Endpoint),
    Raw(raw::Endpoint),
}

impl Endpoint {
    /// Accepts on a free port of `ip` and serves until the runtime ends.
    pub(crate) async fn listen(self, ip: IpAddr, counters: Arc<Counters>) -> Result<Target> {
        match self {
            Self::Libp2p(endpoint) => endpoint.listen(ip, counters).await,
            Self::Raw(endpoint) => endpoint.listen(ip, counters).await,
        }
    }

    /// Connects as far as the stack calls a connection established.
    pub(crate) async fn dial(&mut self, target: &Target) -> Result<Connection> {
        self.dialling(target)?.await
    }

    /// The same for several dials of one node at once. Nothing happens before the future is polled.
    pub(crate) fn dialling(&mut self, target: &Target) -> Result<impl Future<Output = Result<Connection>> + use<>> {
        Ok(match self {
            Self::Libp2p(endpoint) => Either::Left(endpoint.dial(target)?.map_ok(Connection::Muxed)),
            Self::Raw(endpoint) => {
                Either::Right(endpoint.dial(target).map_ok(|stream| Connection::Single(Some(stream))))
            }
        })
    }
}

/// An established connection, seen from its dialer.
pub(crate) enum Connection {
    Muxed(libp2p::Opener),
    Single(Option<Stream>),
}

impl Connection {
    /// A new substream, its protocol negotiated lazily; without a muxer the connection itself.
    pub(crate) async fn open(&mut self) -> Result<Stream> {
        match self {
            Self::Muxed(opener) => opener.open().await,
            Self::Single(stream) => stream
                .take()
                .ok_or_else(|| anyhow::anyhow!("without a muxer there is one stream")),
        }
    }

    /// Is done with a stream of [`Connection::open`]. The connection stays.
    pub(crate) fn release(&mut self, stream: Stream) {
        match self {
            Self::Muxed(_) => drop(stream),
            Self::Single(own) => *own = Some(stream),
        }
    }
}
