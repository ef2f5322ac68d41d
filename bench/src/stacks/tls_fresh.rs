//! libp2p-tls without session resumption.
//!
//! `libp2p_tls::Config` hides its rustls configurations, and those resume: whoever redials with one configuration
//! measures abbreviated handshakes. This upgrade is that crate's with resumption and tickets switched off, the rest
//! step by step as there, a copy of the configuration for each connection included.

use futures::future::{BoxFuture, FutureExt as _};
use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use libp2p_core::UpgradeInfo;
use libp2p_core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p_identity::{Keypair, PeerId};
use libp2p_tls::certificate;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, CommonState, ServerConfig};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct FreshTls {
    client: ClientConfig,
    server: ServerConfig,
}

impl FreshTls {
    pub(super) fn new(key: &Keypair) -> Result<Self, certificate::GenError> {
        let mut client = libp2p_tls::make_client_config(key, None)?;
        client.resumption = Resumption::disabled();
        let mut server = libp2p_tls::make_server_config(key)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { client, server })
    }
}

impl UpgradeInfo for FreshTls {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/tls/1.0.0")
    }
}

impl<C> InboundConnectionUpgrade<C> for FreshTls
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let stream = TlsAcceptor::from(Arc::new(self.server)).accept(socket).await?;
            let peer = peer_of(stream.get_ref().1)?;
            Ok((peer, stream.into()))
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for FreshTls
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = (PeerId, TlsStream<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        async move {
            let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
            let connector = TlsConnector::from(Arc::new(self.client));
            let stream = connector.connect(name, socket).await?;
            let peer = peer_of(stream.get_ref().1)?;
            Ok((peer, stream.into()))
        }
        .boxed()
    }
}

fn peer_of(state: &CommonState) -> io::Result<PeerId> {
    let Some([certificate]) = state.peer_certificates() else {
        return Err(io::Error::other("not exactly one certificate"));
    };
    let certificate = certificate::parse(certificate).map_err(io::Error::other)?;
    Ok(certificate.peer_id())
}
