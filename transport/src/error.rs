//! What can go wrong, by stage. Typed here, in full; nothing of it ever goes on the wire.

use crate::certificate::Unreadable;
use crate::identity::{SignError, UnsupportedKey};
use crate::knock::{Mode, Refusal};
use crate::tls::CertificateRefusal;
use crate::unanswered::Unanswered;
use libp2p_core::Multiaddr;
use libp2p_identity::{KeyType, PeerId};
use std::fmt;
use std::time::Duration;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// How far a connection or a listener had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the address, before anything else.
    Address,
    /// In the inner transport: connecting, listening, accepting.
    Inner,
    /// Writing or awaiting the knock.
    Knock,
    /// In the TLS handshake.
    Tls,
    /// After TLS, before the muxer: what was negotiated, and the secured hook.
    Secured,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "address",
            Self::Inner => "inner transport",
            Self::Knock => "knock",
            Self::Tls => "TLS",
            Self::Secured => "secured",
        })
    }
}

/// An [`Error`] and the stage at which it happened: the error type of the transports in this crate.
///
/// libp2p wraps it a few times on its way to a `SwarmEvent`; [`Failure::find`] gets it back out. A failed dial reports
/// an error for each address, and those have to be asked one by one:
///
/// ```
/// # use libp2p_knock::{Error, Failure};
/// use libp2p::swarm::DialError;
///
/// fn nobody_was_named(error: &DialError) -> bool {
///     let DialError::Transport(addresses) = error else { return false };
///     addresses.iter().any(|(_, error)| matches!(Failure::find(error), Some(Error::MissingPeerId { .. })))
/// }
/// ```
#[derive(Debug)]
pub struct Failure {
    stage: Stage,
    error: Box<Error>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Short, as each wrapper of libp2p's repeats it. What went wrong is the source, which is said once.
        write!(f, "knock transport, stage {}", self.stage)
    }
}

impl std::error::Error for Failure {
    // Not the box: nobody would find an `Error` in it.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.error)
    }
}

impl Failure {
    pub(crate) fn new(stage: Stage, error: Error) -> Self {
        Self {
            stage,
            error: Box::new(error),
        }
    }

    /// How far it had come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What went wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What went wrong, by value.
    pub fn into_error(self) -> Error {
        *self.error
    }

    /// Finds the first [`Error`] among `error` and its sources.
    ///
    /// An `Either` of libp2p hides the error it wraps and shows only that error's source, and an `io::Error` hides
    /// its custom error likewise: that is why [`Error`] is the *source* of a [`Failure`] and not the failure itself.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Error>() {
                return Some(found);
            }
            if let Some(failure) = error.downcast_ref::<Self>() {
                return Some(&failure.error);
            }
            next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

/// What went wrong with one dial, one inbound connection or one listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The other end presented something else than the one certificate of the peer we expect. Their fault, or
    /// somebody in between.
    #[error("the certificate was refused")]
    Certificate(#[source] CertificateRefusal),
    /// A hook of the configuration said no, or panicked: the source is a
    /// [`HookPanicked`](crate::HookPanicked) then.
    #[error("denied by our own policy")]
    Denied(#[source] Boxed),
    /// The other end closed the connection where the protocol had more to say. A dialer whose knock
    /// was not answered has [`Error::Unanswered`] instead.
    #[error("the other end closed the connection")]
    Closed,
    /// The inner transport failed to connect, listen or accept.
    #[error("the inner transport failed")]
    Inner(#[source] Boxed),
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] std::io::Error),
    /// The task of the listening side has ended: it panicked, or its runtime was shut down. Every
    /// listener of the transport is closed. The transport can listen anew.
    #[error("the task of the listening side has ended: it panicked, or its runtime was shut down")]
    ListenersEnded,
    /// A knock was awaited from a dialled peer (hole punching) and refused, or a caller had to go
    /// for others.
    #[error("the knock was refused")]
    Knock(#[source] Refusal),
    /// The configuration contradicts itself. Nothing listens and nothing is dialled before that is
    /// mended.
    #[error("the configuration contradicts itself")]
    Config(#[source] ConfigError),
    /// The address names no peer, and without knowing whom to knock at there is no knock. Add `/p2p/<peer id>`.
    #[error("{address} names no peer: a knock is addressed to a key, add /p2p/<peer id>")]
    MissingPeerId {
        /// The address that was dialled.
        address: Multiaddr,
    },
    /// We want a muxer and the other end speaks ragep2p's frames. A matter of configuration on either side; an end in
    /// frames mode, which uses no ALPN, does not notice and sees its connection closed.
    #[error("we speak {ours:?} inside TLS, the other end does not")]
    Mode {
        /// What is configured here.
        ours: Mode,
    },
    /// ragep2p's frames are configured for this peer, or for every peer if none is named, and this
    /// transport puts yamux on its connections. [`Authenticated`](crate::Authenticated) by itself
    /// speaks frames.
    #[error("{} configured for frames, and this transport speaks yamux", match peer {
        Some(peer) => format!("{peer} is"),
        None => "every peer is".to_owned(),
    })]
    NotMuxed {
        /// The peer that was dialled, or none when listening.
        peer: Option<PeerId>,
    },
    /// A listen address names somebody else.
    #[error("{address} names a peer that is not us")]
    NotOurPeerId {
        /// The address to listen on.
        address: Multiaddr,
    },
    /// Somebody listens on this port already. With `SO_REUSEPORT`, which libp2p sets, both would get a share of the
    /// connections and each would fail the other's.
    #[error("{address} is in use: a second listener would silently take a share of its connections")]
    PortInUse {
        /// The address to listen on.
        address: Multiaddr,
    },
    /// The address leads to ourselves.
    #[error("the address leads to ourselves")]
    SelfDial,
    /// The sealed knock could not be made: our own identity did not do its Diffie-Hellman, the
    /// system gave no random bytes, or the clock shows no time.
    #[error("the knock could not be made")]
    Seal(#[source] Boxed),
    /// Our own identity could not sign.
    #[error(transparent)]
    Sign(SignError),
    /// It took too long. A dialer whose knock was not answered has [`Error::Unanswered`] instead.
    #[error("not done within {0:?}")]
    Timeout(Duration),
    /// TLS failed for another reason than the certificate.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
    /// Our knock was not answered. This is what every refusal looks like to the one that knocks: a
    /// wrong peer at the address, an admission rule, another version, another network, a wrong
    /// clock. What the dialer knows beyond that is in it.
    #[error(transparent)]
    Unanswered(Box<Unanswered>),
    /// The peer that was dialled has a key this transport cannot knock at.
    #[error("{peer} has {reason}")]
    UnsupportedKey {
        /// The peer.
        peer: PeerId,
        /// What its key is.
        reason: UnsupportedKey,
    },
    /// Another peer than the one dialled answered. Whoever gave us the address was wrong, or lied.
    #[error("dialled {expected}, found {found}")]
    WrongPeer {
        /// Whom we dialled.
        expected: PeerId,
        /// Who answered.
        found: PeerId,
    },
}

impl Error {
    pub(crate) fn at(self, stage: Stage) -> Failure {
        Failure::new(stage, self)
    }

    pub(crate) fn inner(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
        Self::Inner(Box::new(error)).at(Stage::Inner)
    }
}

/// The texts of an error and of all its sources.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// What a `read` or a `write` of ours says, told apart by whose doing it is.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = &error
            && let Some(refusal) = other.0.downcast_ref::<CertificateRefusal>()
        {
            return match *refusal {
                CertificateRefusal::OtherPeer { expected, found } => Self::WrongPeer { expected, found },
                refusal => Self::Certificate(refusal),
            };
        }
        Self::Tls(error)
    }
}

impl From<Unreadable> for CertificateRefusal {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Malformed => Self::Malformed,
            Unreadable::NotEd25519 => Self::NotEd25519,
        }
    }
}

/// A configuration that cannot work. Always ours to mend, and found before any socket is opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The identity is not Ed25519. Ethereum consensus nodes, whose keys are secp256k1, cannot use this transport.
    #[error("the identity is a {found} key: only Ed25519 can knock")]
    UnsupportedKeyType {
        /// What the identity is.
        found: KeyType,
    },
    /// The identity can only sign, and a sealed knock needs a Diffie-Hellman with it as well. See
    /// [`Identity::agree`](crate::Identity::agree) and [`Config::with_signer`](crate::Config::with_signer).
    #[error("the identity can only sign: a sealed knock (v3) needs `Identity::agree`")]
    SignerCannotKnockV3,
    /// Version 2 is the rule in a private network, and knows of no networks: every peer that knows
    /// our PeerID could knock. Make version 3 the rule, and give single peers version 2 by
    /// [`Config::with_peer`](crate::Config::with_peer).
    #[error("a private network needs version 3 as the rule: knocks of version 2 know of no networks")]
    NetworkNeedsV3,
    /// This was set after the configuration was cloned. All clones, and the transports made of
    /// them, share what is remembered of knocks: set it first.
    #[error("`{setting}` comes too late: the configuration was cloned before")]
    Cloned {
        /// The method.
        setting: &'static str,
    },
    /// A peer was configured whose key this transport cannot knock at.
    #[error("{peer} has {reason}")]
    UnsupportedPeer {
        /// The peer.
        peer: PeerId,
        /// What its key is.
        reason: UnsupportedKey,
    },
    /// The identity's public key is not in its canonical encoding, or of small order.
    #[error("the identity's public key is no usable Ed25519 key")]
    InvalidKey(#[source] UnsupportedKey),
    /// The identity could not sign its own certificate.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The identity's signature, or its Diffie-Hellman, is not its public key's.
    #[error("the identity works with another key than its public key")]
    SignerMismatch,
    /// No key-exchange group was named.
    #[error("no key-exchange group is enabled")]
    NoKeyExchange,
    /// rustls refused the configuration.
    #[error("TLS cannot be configured")]
    Tls(#[source] rustls::Error),
}
