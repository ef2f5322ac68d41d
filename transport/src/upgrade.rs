//! The ordered steps of one connection, dialled or accepted, each under its deadline.
//!
//! | step | dialer | listener |
//! | --- | --- | --- |
//! | 1 | connects | accepts |
//! | 2 | sends the knock and its whole first TLS flight in one write | reads the knock, and not a byte more |
//! | 3 |  | opens it, asks the admission hook, reads and opens the flight, remembers the knock |
//! | 4 | finishes TLS with the one peer it dialled | finishes TLS with the one peer that knocked |
//! | 5 | compares what was negotiated with what is configured | the same |
//! | 6 | asks the secured hook | the same |

use crate::address;
use crate::announce::Unmarked;
use crate::config::{Config, Dialect, KeyExchange};
use crate::error::{self, Error, Failure, Stage};
use crate::guard::Told;
use crate::handshake::{self, Handshake};
use crate::identity::Key;
use crate::judge::{Invited, Judged, Turned};
use crate::knock::v3::{self, Callee};
use crate::knock::{Mode, Refusal, Version, v2};
use crate::lent::{Lent, lend};
use crate::metrics::Outcome;
use crate::silence::prefix::Prefix;
use crate::stream::{About, Role, TlsStream};
use crate::timer::Deadline;
use crate::tls::{self, Tls};
use crate::unanswered::{First, Heard, Unanswered};
use crate::user_code::Hook;
use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use libp2p_core::{ConnectedPoint, Multiaddr};
use libp2p_identity::PeerId;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use web_time::Instant;

/// A configuration and what is made from it once.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tls: Tls,
    /// See [`Config::v2_peers`].
    pub(crate) v2_peers: Option<usize>,
    /// See [`Config::is_ambiguous`].
    pub(crate) ambiguous: bool,
    /// The code points of our key-exchange groups.
    pub(crate) groups: Vec<u16>,
    pub(crate) unmarked: Unmarked,
    /// Whether a muxer comes behind it, so that no peer may speak frames.
    muxed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let tls = Tls::new(
            config.caught.clone(),
            config.certificate.clone(),
            &config.groups,
            config.key_log.clone(),
        )
        .expect("the provider has TLS 1.3 suites, and `Config` lets no empty list of groups through");
        Arc::new(Self {
            v2_peers: config.v2_peers(),
            ambiguous: config.is_ambiguous(),
            groups: config.groups.iter().map(|group| group.code_point()).collect(),
            unmarked: Unmarked::default(),
            muxed: AtomicBool::new(false),
            config,
            tls,
        })
    }

    /// A muxer comes behind it.
    pub(crate) fn muxed(&self) {
        self.muxed.store(true, Ordering::Relaxed);
    }

    /// Whether `dialect` can be spoken here.
    pub(crate) fn speaks(&self, dialect: Dialect) -> bool {
        dialect.mode == Mode::Yamux || !self.muxed.load(Ordering::Relaxed)
    }

    /// Why nothing listens and nothing is dialled, however it is asked.
    pub(crate) fn contradiction(&self) -> Option<Error> {
        if let Some(error) = self.config.contradiction() {
            return Some(Error::Config(error));
        }
        let muxed = self.muxed.load(Ordering::Relaxed);
        (muxed && !self.config.speaks_yamux()).then_some(Error::NotMuxed { peer: None })
    }

    /// Knocks at `peer` on a connected socket and becomes the TLS client. Says in `knocked` when the peer may have heard
    /// of it.
    pub(crate) async fn knock_at<S>(
        &self,
        io: S,
        peer: Key,
        point: &ConnectedPoint,
        knocked: &AtomicBool,
    ) -> Result<(PeerId, TlsStream<S>), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let dialect = self.config.dialect(&peer);
        let started = Instant::now();
        if let Some(wait) = self.config.guard.too_young() {
            Deadline::after(wait).await;
        }
        let tls = |error: Error| error.at(Stage::Tls);
        let client = UnbufferedClientConnection::new(self.tls.client(peer, dialect.alpn()), tls::no_server_name());
        let mut client = client.map_err(|error| tls(error.into()))?;
        let flight = handshake::first_flight(&mut client).map_err(tls)?;
        let knock = self.knock(peer, dialect, flight).map_err(|e| e.at(Stage::Knock))?;
        let (who, bytes) = (peer.peer_id(), knock.len());
        tracing::debug!(peer = %who, %dialect, bytes, "knocking");
        let (mut io, mut first) = (io, First::default());
        let shaken = Instant::now();
        knocked.store(true, Ordering::Relaxed);
        let done = self.shake(&mut io, client, knock, &[], &mut first).await;
        let (after, place) = (shaken.elapsed(), place_of(point));
        let done = match done {
            Ok(done) => {
                tracing::debug!(peer = %who, group = ?done.key_exchange, ?after, "answered, TLS is done");
                self.config
                    .guard
                    .answered_by(&peer, place, dialect.version == Version::V3);
                Ok(done)
            }
            Err(error) => Err(self.explained(error, &first, peer, place.as_ref(), after)),
        };
        let done = self.settle(done, peer, dialect, Role::Dialer, started, point)?;
        Ok((peer.peer_id(), self.stream(io, done, peer, dialect, Role::Dialer)))
    }

    /// What a dial failed with: that its knock was not answered, unless it was.
    fn explained(&self, error: Error, first: &First, peer: Key, place: Option<&Multiaddr>, after: Duration) -> Error {
        let version = self.config.dialect(&peer).version;
        let ended = match error {
            Error::Timeout(_) => false,
            Error::Closed | Error::Tls(_) => true,
            // Something else broke.
            _ => return error,
        };
        let heard = match first.heard(ended) {
            None => return error,
            // Go's ragep2p sends alerts to a peer whose knock it has let in.
            Some(Heard::Alert(_)) if version == Version::V2 => return error,
            Some(heard) => heard,
        };
        let after = if ended { after } else { self.config.handshake_timeout };
        let silent = heard.is_silence(after);
        Error::Unanswered(Box::new(Unanswered {
            peer: peer.peer_id(),
            version,
            network: self.config.network_name(),
            heard,
            after,
            known: self.config.guard.not_answered_by(&peer, place, silent),
        }))
    }

    /// An error and its sources, for the log. Some of them are the user's, and so is their text.
    pub(crate) fn whole(&self, error: &Error) -> String {
        let hook = match error {
            Error::Inner(_) => Hook::Inner,
            Error::Sign(_) => Hook::Sign,
            _ => Hook::Secured,
        };
        let said = self.config.user_code.run(hook, || error::whole(error));
        said.unwrap_or_else(|panicked| panicked.to_string())
    }

    /// All that a dialer writes before it has heard anything.
    fn knock(&self, peer: Key, dialect: Dialect, flight: Vec<u8>) -> Result<Vec<u8>, Error> {
        let config = &self.config;
        match (dialect.version, &config.sealed) {
            (Version::V3, Some(sealed)) => {
                let callee = Callee::of(&sealed.own, peer).map_err(|reason| Error::UnsupportedKey {
                    peer: peer.peer_id(),
                    reason,
                })?;
                let fresh = config.random.fresh().map_err(|error| Error::Seal(error.into()))?;
                let now = config.guard.now_ms().map_err(|error| Error::Seal(error.into()))?;
                v3::seal(&sealed.own, &callee, &sealed.network, dialect.mode, now, fresh, &flight)
                    .map_err(|error| Error::Seal(error.into()))
            }
            // `Config` lets nobody knock with v3 who cannot.
            _ => {
                let knock = v2::seal(&*config.caught, &peer.bytes()).map_err(Error::Sign)?;
                Ok([&knock[..], &flight].concat())
            }
        }
    }

    /// Answers a caller and becomes the TLS server. A caller that does not authenticate is to see
    /// no more than a stranger does, so its socket is given back, unless it was taken back already.
    /// One that did, and is not wanted, sees it closed.
    pub(crate) async fn answer<S>(
        &self,
        mut lent: Lent<S>,
        invited: Invited,
        prefix: Prefix,
        point: &ConnectedPoint,
    ) -> Result<(PeerId, TlsStream<S>), (Failure, Option<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (peer, dialect, started) = (invited.caller.key(), invited.dialect, Instant::now());
        self.config.metrics.read(invited.size);
        let server = self.tls.server(peer, dialect.alpn());
        let mut first = First::default();
        let done = match server.and_then(UnbufferedServerConnection::new) {
            Ok(server) => {
                let (io, recalled) = lent.parts();
                let shaking = pin!(self.shake(io, server, Vec::new(), &invited.flight, &mut first));
                match select(shaking, pin!(recalled)).await {
                    Either::Left((done, _)) => done,
                    Either::Right(((), _)) => Err(Error::Knock(Refusal::Budget)),
                }
            }
            Err(error) => Err(error.into()),
        };
        // From here it is not taken back any more.
        let io = lent.keep();
        let done = if io.is_some() {
            done
        } else {
            Err(Error::Knock(Refusal::Budget))
        };
        let authenticated = done.is_ok();
        if authenticated {
            self.config.guard.authenticated(prefix);
            if let Some(skew_ms) = invited.skew_ms {
                self.config.guard.heard_clock_of(&peer, skew_ms);
            }
        }
        match (self.settle(done, peer, dialect, Role::Listener, started, point), io) {
            (Ok(done), Some(io)) => Ok((peer.peer_id(), self.stream(io, done, peer, dialect, Role::Listener))),
            // Without a socket it was an error that was settled.
            (Ok(_), None) => Err((Error::Closed.at(Stage::Tls), None)),
            (Err(failure), io) => {
                let guard = &self.config.guard;
                let debug = tracing::enabled!(tracing::Level::DEBUG);
                let reason = if debug {
                    self.whole(failure.error())
                } else {
                    String::new()
                };
                guard.tell(Told::Failed, prefix, Some(peer.peer_id()), &reason);
                Err((failure, io.filter(|_| !authenticated)))
            }
        }
    }

    /// Awaits the knock of `peer` on a socket that we dialled (hole punching), then answers it. Whoever else knocks is
    /// read from until the time is over, and hears nothing.
    pub(crate) async fn await_knock_of<S>(
        &self,
        mut io: S,
        peer: Key,
        point: &ConnectedPoint,
    ) -> Result<(PeerId, TlsStream<S>), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let prefix = Prefix::of(point.get_remote_address());
        let limit = self.config.handshake_timeout;
        let mut turned = None;
        let awaiting = async {
            match self.await_invited(&mut io, peer, prefix, point).await {
                Ok(invited) => Ok(invited),
                Err(Error::Closed) => Err(Error::Closed),
                Err(error) => {
                    turned = Some(error);
                    let mut sink = [0; 512];
                    while let Ok(1..) = io.read(&mut sink).await {}
                    Err(Error::Closed)
                }
            }
        };
        let awaited = within(limit, awaiting).await;
        let invited = awaited.map_err(|error| turned.unwrap_or(error).at(Stage::Knock))?;
        let (_lender, lent) = lend(io);
        let answered = self.answer(lent, invited, prefix, point).await;
        answered.map_err(|(failure, _)| failure)
    }

    async fn await_invited<S>(
        &self,
        io: &mut S,
        peer: Key,
        prefix: Prefix,
        point: &ConnectedPoint,
    ) -> Result<Invited, Error>
    where
        S: AsyncRead + Unpin,
    {
        let mut reader = self.reader();
        let judged = loop {
            if let Some(gathered) = reader.gathered() {
                match self.judge_head(gathered, prefix, point) {
                    Ok(Judged::Undecided) => reader.go_on(),
                    judged => break judged,
                }
            }
            match io.read(reader.space()).await? {
                0 => return Err(Error::Closed),
                n => reader.advance(n, |claimed| self.may_v2(claimed)),
            }
        };
        let judged = match judged {
            Ok(Judged::Awaited(opened)) => {
                let mut sealed = vec![0; opened.sealed_len()];
                io.read_exact(&mut sealed).await?;
                self.judge_flight(&opened, &sealed, prefix)
            }
            Ok(Judged::Invited(invited)) => Ok(invited),
            // Gone on with above.
            Ok(Judged::Undecided) => Err(Turned::GONE),
            Err(turned) => Err(turned),
        };
        self.count(judged.as_ref(), prefix);
        let invited = judged?;
        let (expected, found) = (peer.peer_id(), invited.caller.peer());
        if expected != found {
            return Err(Error::WrongPeer { expected, found });
        }
        Ok(invited)
    }

    /// Step 4, with `sent` sent at once and `received` as the first that was heard. What is heard
    /// then is noted in `first`.
    async fn shake<S, H>(
        &self,
        io: &mut S,
        tls: H,
        sent: Vec<u8>,
        received: &[u8],
        first: &mut First,
    ) -> Result<handshake::Done, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        H: Handshake,
    {
        let shaking = handshake::run(io, tls, sent, received, first, &self.config.metrics);
        within(self.config.handshake_timeout, shaking).await
    }

    /// Steps 5 and 6.
    fn settle(
        &self,
        done: Result<handshake::Done, Error>,
        peer: Key,
        dialect: Dialect,
        role: Role,
        started: Instant,
        point: &ConnectedPoint,
    ) -> Result<handshake::Done, Failure> {
        let Config {
            metrics,
            secured,
            user_code,
            ..
        } = &self.config;
        let group = done.as_ref().ok().and_then(|done| done.key_exchange);
        let failed = |error: Error| match error {
            Error::Unanswered(_) => error.at(Stage::Knock),
            error => error.at(Stage::Tls),
        };
        let result = done.map_err(failed).and_then(|done| {
            if done.alpn.as_deref() != dialect.alpn() {
                return Err(Error::Mode { ours: dialect.mode }.at(Stage::Secured));
            }
            if let Some(hook) = secured {
                let said = user_code.ask(Hook::Secured, || hook(&peer.peer_id(), point));
                said.map_err(|denial| Error::Denied(denial).at(Stage::Secured))?;
            }
            Ok(done)
        });
        let outcome = result.as_ref().map_or_else(|e| e.error().into(), |_| Outcome::Ok);
        metrics.handshake(role, outcome, group.map_or("", KeyExchange::name), started.elapsed());
        result
    }

    fn stream<S>(&self, io: S, done: handshake::Done, peer: Key, dialect: Dialect, role: Role) -> TlsStream<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let about = About {
            peer: peer.peer_id(),
            role,
            mode: dialect.mode,
            key_exchange: done.key_exchange,
            close_timeout: self.config.close_timeout,
            metrics: self.config.metrics.clone(),
        };
        TlsStream::new(io, done.records, done.received, about)
    }
}

/// Where a dial went, without the peer that was meant.
fn place_of(point: &ConnectedPoint) -> Option<Multiaddr> {
    let ConnectedPoint::Dialer { address, .. } = point else {
        return None;
    };
    Some(address::parse(address)?.inner)
}

/// `work`, or [`Error::Timeout`].
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match select(pin!(work), Deadline::after(limit)).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(Error::Timeout(limit)),
    }
}
