//! The limits: TCP, and mutual TLS 1.3 on it, with nothing else.

use super::raw_tls::configs;
use super::{Stream, Target};
use crate::service::{Counters, serve};
use anyhow::{Context as _, Result};
use futures_rustls::{TlsAcceptor, TlsConnector};
use libp2p_tcp::tokio::TcpStream;
use rustls::NamedGroup;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::net::TcpListener;

pub(crate) struct Endpoint {
    tls: Option<(TlsConnector, TlsAcceptor)>,
}

impl Endpoint {
    pub(super) fn tcp() -> Self {
        Self { tls: None }
    }

    pub(super) fn tls(group: NamedGroup) -> Result<Self> {
        let (client, server) = configs(group)?;
        Ok(Self {
            tls: Some((Arc::new(client).into(), Arc::new(server).into())),
        })
    }

    pub(super) async fn listen(self, ip: IpAddr, counters: Arc<Counters>) -> Result<Target> {
        let listener = TcpListener::bind((ip, 0)).await.context("listening")?;
        let socket = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = self.tls.as_ref().map(|(_, acceptor)| acceptor.clone());
                let counters = counters.clone();
                tokio::spawn(async move {
                    stream.set_nodelay(true)?;
                    let _live = counters.live();
                    let stream = TcpStream(stream);
                    match acceptor {
                        Some(acceptor) => serve(acceptor.accept(stream).await?, &counters).await,
                        None => serve(stream, &counters).await,
                    }
                });
            }
        });
        Ok(Target { socket, peer: None })
    }

    pub(super) fn dial(&self, target: &Target) -> impl Future<Output = Result<Stream>> + use<> {
        let (socket, connector) = (target.socket, self.tls.as_ref().map(|(connector, _)| connector.clone()));
        async move {
            let stream = tokio::net::TcpStream::connect(socket).await?;
            stream.set_nodelay(true)?;
            let stream = TcpStream(stream);
            Ok(match connector {
                Some(connector) => {
                    let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
                    Box::new(connector.connect(name, stream).await?)
                }
                None => Box::new(stream) as Stream,
            })
        }
    }
}
