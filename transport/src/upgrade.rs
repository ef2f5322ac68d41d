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

use crate::announce::Unmarked;
use crate::config::{Config, Dialect, KeyExchange};
use crate::error::{Error, Failure, Stage};
use crate::handshake::{self, Handshake};
use crate::identity::Key;
use crate::knock::reader::{Gathered, Reader};
use crate::knock::v3::{self, Callee, HEAD, Opened};
use crate::knock::{Caller, Mode, Refusal, Version, v2};
use crate::lent::{Lent, lend};
use crate::metrics::{KnockOutcome, Outcome};
use crate::silence::prefix::Prefix;
use crate::silence::summary::Cause;
use crate::stream::{About, Role, TlsStream};
use crate::timer::Deadline;
use crate::tls::{self, Tls};
use crate::user_code::Hook;
use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use libp2p_core::ConnectedPoint;
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
    v2_peers: Option<usize>,
    /// See [`Config::is_ambiguous`].
    ambiguous: bool,
    /// The code points of our key-exchange groups.
    groups: Vec<u16>,
    pub(crate) unmarked: Unmarked,
    /// Whether a muxer comes behind it, so that no peer may speak frames.
    muxed: AtomicBool,
}

/// What a right head leads to.
pub(crate) enum Judged {
    /// The caller may be answered.
    Invited(Invited),
    /// So it may once its flight is here.
    Awaited(Box<Opened>),
    /// What looked like a v2 knock is none, and may be the beginning of a sealed one: see [`Reader::go_on`].
    Undecided,
}

/// Who may be answered, and the bytes of TLS that came with the knock.
pub(crate) struct Invited {
    pub(crate) caller: Caller,
    dialect: Dialect,
    flight: Vec<u8>,
    /// Of the knock on the wire.
    size: usize,
}

/// Why somebody is not answered.
pub(crate) enum Turned {
    Refused(Refusal),
    Denied(crate::Denial),
    /// Its socket has gone meanwhile.
    Gone,
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Turned> for Error {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Refused(refusal) => Self::Knock(refusal),
            Turned::Denied(denial) => Self::Denied(denial),
            Turned::Gone => Self::Closed,
        }
    }
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
        let first = self.knock(peer, dialect, flight).map_err(|e| e.at(Stage::Knock))?;
        let mut io = io;
        knocked.store(true, Ordering::Relaxed);
        let done = self.shake(&mut io, client, first, &[]).await;
        let done = self.settle(done, peer, dialect, Role::Dialer, started, point)?;
        Ok((peer.peer_id(), self.stream(io, done, peer, dialect, Role::Dialer)))
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

    /// A reader for whatever may be knocked with.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.v2_peers != Some(0))
    }

    /// Whether this key may knock with version 2.
    pub(crate) fn may_v2(&self, claimed: &[u8; 32]) -> bool {
        Key::check(claimed).is_ok_and(|key| self.config.dialect(&key).version == Version::V2)
    }

    /// Opens what was gathered and asks whether its sender may come in.
    pub(crate) fn judge_head(
        &self,
        gathered: Gathered<'_>,
        prefix: Prefix,
        point: &ConnectedPoint,
    ) -> Result<Judged, Turned> {
        let config = &self.config;
        match gathered {
            Gathered::V2(knock) => {
                let caller = match config.guard.open_v2(&config.key, knock, prefix, self.v2_peers) {
                    Err(Refusal::Signature) if self.ambiguous => return Ok(Judged::Undecided),
                    opened => opened?,
                };
                let dialect = config.dialect(&caller.key());
                if !self.speaks(dialect) {
                    return Err(Refusal::NotConfigured.into());
                }
                self.admit(&caller, point)?;
                Ok(Judged::Invited(Invited {
                    caller,
                    dialect,
                    flight: Vec::new(),
                    size: v2::SIZE,
                }))
            }
            Gathered::V3(head) => {
                let sealed = config.sealed.as_ref().ok_or(Refusal::Version(head[0]))?;
                let opened = config.guard.open_head(&sealed.gate, head, prefix)?;
                let (version, mode) = (Version::V3, opened.mode());
                let dialect = Dialect { version, mode };
                if config.dialect(&opened.caller().key()) != dialect || !self.speaks(dialect) {
                    return Err(Refusal::NotConfigured.into());
                }
                self.admit(&opened.caller(), point)?;
                Ok(Judged::Awaited(Box::new(opened)))
            }
        }
    }

    /// Opens the flight that belongs to a head, and takes the knock once and never again.
    pub(crate) fn judge_flight(&self, opened: &Opened, sealed: &[u8], prefix: Prefix) -> Result<Invited, Turned> {
        let flight = opened.open_flight(sealed, &self.groups)?;
        self.config.guard.remember(opened, prefix)?;
        let (version, mode) = (Version::V3, opened.mode());
        Ok(Invited {
            caller: opened.caller(),
            dialect: Dialect { version, mode },
            flight,
            size: HEAD + sealed.len(),
        })
    }

    /// Asks the admission hook.
    fn admit(&self, caller: &Caller, point: &ConnectedPoint) -> Result<(), Turned> {
        let Some(hook) = &self.config.admission else {
            return Ok(());
        };
        let said = self
            .config
            .user_code
            .ask(Hook::Admission, || hook(&caller.peer(), point));
        said.map_err(Turned::Denied)
    }

    /// Counts what became of a knock.
    pub(crate) fn count(&self, judged: Result<(), &Turned>) {
        let (outcome, cause) = match judged {
            Ok(()) => return self.config.metrics.knock(KnockOutcome::Accepted),
            Err(Turned::Refused(refusal)) => (KnockOutcome::Refused(*refusal), Cause::from(*refusal)),
            Err(Turned::Denied(_)) => (KnockOutcome::Denied, Cause::Denied),
            Err(Turned::Gone) => return,
        };
        self.config.metrics.knock(outcome);
        self.config.guard.count(cause);
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
        let done = match server.and_then(UnbufferedServerConnection::new) {
            Ok(server) => {
                let (io, recalled) = lent.parts();
                let shaking = pin!(self.shake(io, server, Vec::new(), &invited.flight));
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
        }
        match (self.settle(done, peer, dialect, Role::Listener, started, point), io) {
            (Ok(done), Some(io)) => Ok((peer.peer_id(), self.stream(io, done, peer, dialect, Role::Listener))),
            // Without a socket it was an error that was settled.
            (Ok(_), None) => Err((Error::Closed.at(Stage::Tls), None)),
            (Err(failure), io) => Err((failure, io.filter(|_| !authenticated))),
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
            Ok(Judged::Undecided) => Err(Turned::Gone),
            Err(turned) => Err(turned),
        };
        self.count(judged.as_ref().map(|_| ()));
        let invited = judged?;
        let (expected, found) = (peer.peer_id(), invited.caller.peer());
        if expected != found {
            return Err(Error::WrongPeer { expected, found });
        }
        Ok(invited)
    }

    /// Step 4, with `first` sent at once and `received` as the first that was heard.
    async fn shake<S, H>(&self, io: &mut S, tls: H, first: Vec<u8>, received: &[u8]) -> Result<handshake::Done, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        H: Handshake,
    {
        let shaking = handshake::run(io, tls, first, received, &self.config.metrics);
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
        let result = done.map_err(|e| e.at(Stage::Tls)).and_then(|done| {
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

/// `work`, or [`Error::Timeout`].
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match select(pin!(work), Deadline::after(limit)).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(Error::Timeout(limit)),
    }
}
