//! The ordered steps of one connection, dialled or accepted, each under its deadline.
//!
//! | step | dialer | listener |
//! | --- | --- | --- |
//! | 1 | connects | accepts |
//! | 2 | sends knock ‖ ClientHello in one write | reads the knock, and not a byte more |
//! | 3 |  | asks the admission hook |
//! | 4 | finishes TLS with the one peer it dialled | finishes TLS with the one peer that knocked |
//! | 5 | compares what was negotiated with the mode | the same |
//! | 6 | asks the secured hook | the same |

use crate::config::{Config, KeyExchange};
use crate::error::{Error, Failure, Stage};
use crate::handshake::{self, Handshake};
use crate::identity::Key;
use crate::knock::{self, Caller};
use crate::metrics::{KnockOutcome, Outcome};
use crate::stream::{About, Role, TlsStream};
use crate::timer::Deadline;
use crate::tls::{self, Tls};
use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use libp2p_core::ConnectedPoint;
use libp2p_identity::PeerId;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use web_time::Instant;

/// A configuration and what is made from it once.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tls: Tls,
    /// Whether the streams go straight to our own muxer, which reads after it has flushed.
    pub(crate) for_muxer: bool,
}

impl Shared {
    pub(crate) fn new(config: Config, for_muxer: bool) -> Arc<Self> {
        let tls = Tls::new(
            config.identity.clone(),
            config.certificate.clone(),
            &config.groups,
            config.mode,
            config.key_log.clone(),
        )
        .expect("the provider has TLS 1.3 suites, and `Config` lets no empty list of groups through");
        Arc::new(Self { config, tls, for_muxer })
    }

    /// Knocks at `peer` on a connected socket and becomes the TLS client.
    pub(crate) async fn knock_at<S>(
        &self,
        io: S,
        peer: Key,
        point: &ConnectedPoint,
    ) -> Result<(PeerId, TlsStream<S>), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut first = knock::v2::seal(&*self.config.identity, &peer.bytes())
            .map_err(|e| Error::Sign(e).at(Stage::Knock))?
            .to_vec();
        let tls = |error: Error| error.at(Stage::Tls);
        let client = UnbufferedClientConnection::new(self.tls.client(peer), tls::no_server_name());
        let mut client = client.map_err(|error| tls(error.into()))?;
        first.append(&mut handshake::first_flight(&mut client).map_err(tls)?);
        self.secure(io, client, first, peer, Role::Dialer, point).await
    }

    /// Answers a caller and becomes the TLS server.
    pub(crate) async fn answer<S>(
        &self,
        io: S,
        caller: Caller,
        point: &ConnectedPoint,
    ) -> Result<(PeerId, TlsStream<S>), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let peer = caller.key();
        // Its knock; those of strangers are counted as knocks and not as bytes of a connection.
        self.config.metrics.read(knock::v2::SIZE);
        let server = self.tls.server(peer).and_then(UnbufferedServerConnection::new);
        let server = server.map_err(|error| Error::from(error).at(Stage::Tls))?;
        self.secure(io, server, Vec::new(), peer, Role::Listener, point).await
    }

    /// Awaits the knock of `peer` on a socket that we dialled (hole punching), then answers it.
    pub(crate) async fn await_knock_of<S>(
        &self,
        mut io: S,
        peer: Key,
        point: &ConnectedPoint,
    ) -> Result<(PeerId, TlsStream<S>), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let read = async {
            let caller = read_knock(&mut io).await?.open(&self.config.key.bytes());
            caller.ok_or(Error::Closed)?.map_err(|refusal| {
                self.config.metrics.knock(KnockOutcome::Refused(refusal));
                Error::Knock(refusal)
            })
        };
        let caller = within(self.config.knock_timeout, read)
            .await
            .map_err(|e| e.at(Stage::Knock))?;
        if caller.key() != peer {
            let (expected, found) = (peer.peer_id(), caller.peer());
            return Err(Error::WrongPeer { expected, found }.at(Stage::Knock));
        }
        self.admit(&caller, point)
            .map_err(|denial| Error::Denied(denial).at(Stage::Knock))?;
        self.answer(io, caller, point).await
    }

    /// Asks the admission hook about a valid knock, and counts the answer.
    pub(crate) fn admit(&self, caller: &Caller, point: &ConnectedPoint) -> Result<(), crate::Denial> {
        let answer = match &self.config.admission {
            Some(hook) => hook(&caller.peer(), point),
            None => Ok(()),
        };
        self.config.metrics.knock(match &answer {
            Ok(()) => KnockOutcome::Accepted,
            Err(_) => KnockOutcome::Denied,
        });
        answer
    }

    /// Steps 4 to 6, with `first` sent at once.
    async fn secure<S, H>(
        &self,
        mut io: S,
        tls: H,
        first: Vec<u8>,
        peer: Key,
        role: Role,
        point: &ConnectedPoint,
    ) -> Result<(PeerId, TlsStream<S>), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        H: Handshake,
    {
        let Config { metrics, mode, .. } = &self.config;
        let started = Instant::now();
        let handshaking = handshake::run(&mut io, tls, first, metrics);
        let done = within(self.config.handshake_timeout, handshaking).await;
        let group = done.as_ref().ok().and_then(|done| done.key_exchange);
        let peer_id = peer.peer_id();
        let result = done.map_err(|e| e.at(Stage::Tls)).and_then(|done| {
            if done.alpn.as_deref() != mode.alpn() {
                return Err(Error::Mode { ours: *mode }.at(Stage::Secured));
            }
            if let Some(hook) = &self.config.secured {
                hook(&peer_id, point).map_err(|denial| Error::Denied(denial).at(Stage::Secured))?;
            }
            Ok(done)
        });

        let outcome = result.as_ref().map_or_else(|e| e.error().into(), |_| Outcome::Ok);
        metrics.handshake(role, outcome, group.map_or("", KeyExchange::name), started.elapsed());
        let done = result?;

        let about = About {
            peer: peer_id,
            role,
            mode: *mode,
            key_exchange: done.key_exchange,
            close_timeout: self.config.close_timeout,
            metrics: metrics.clone(),
        };
        let mut stream = TlsStream::new(io, done.records, done.received, about);
        stream.set_flush_on_read(self.for_muxer);
        Ok((peer_id, stream))
    }
}

/// Reads one knock, in whatever pieces it arrives, and leaves what follows in the socket.
pub(crate) async fn read_knock<S: AsyncRead + Unpin>(io: &mut S) -> Result<knock::Reader, Error> {
    let mut reader = knock::Reader::new();
    while !reader.is_complete() {
        match io.read(reader.space()).await? {
            0 => return Err(Error::Closed),
            n => reader.advance(n),
        }
    }
    Ok(reader)
}

/// `work`, or [`Error::Timeout`] after `limit`.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match select(pin!(work), Deadline::after(limit)).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => Err(Error::Timeout(limit)),
    }
}
