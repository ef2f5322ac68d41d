//! What can go wrong, and whose doing it is.

use crate::limits::{MAX_MESSAGE_LENGTH, MAX_PEERS_PER_HOST, MAX_STREAM_NAME_LENGTH, MAX_STREAMS_PER_PEER};
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// [`Limits`](crate::Limits) that cannot work. Always the caller's to mend.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A buffer that holds no message.
    #[error("a buffer has to hold one message at least")]
    NoBuffer,
    /// A maximum message length over [`MAX_MESSAGE_LENGTH`].
    #[error("messages of {0} bytes are not possible, the most is {MAX_MESSAGE_LENGTH}")]
    MessageLength(usize),
    /// A rate that is negative, infinite or no number.
    #[error("{0} is no rate")]
    Rate(f64),
}

/// A stream could not be opened. Found at once: opening never touches the network.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The other end would be ourselves.
    #[error("there are no streams to oneself")]
    OurselfAsPeer,
    /// The peer's key is not Ed25519, and the host knocks at no other.
    #[error("{0} has no Ed25519 key")]
    UnsupportedPeer(PeerId),
    /// A name without a byte.
    #[error("a stream needs a name")]
    EmptyName,
    /// A name over [`MAX_STREAM_NAME_LENGTH`].
    #[error("a name of {0} bytes, the most is {MAX_STREAM_NAME_LENGTH}")]
    NameLength(usize),
    /// There is a stream of this name to this peer. It may be opened again once that one is closed.
    #[error("stream {name:?} to {peer} is open")]
    AlreadyOpen {
        /// The peer.
        peer: PeerId,
        /// The name.
        name: String,
    },
    /// [`MAX_STREAMS_PER_PEER`] streams are open to this peer.
    #[error("{MAX_STREAMS_PER_PEER} streams are open to {0}")]
    TooManyStreams(PeerId),
    /// There are streams to [`MAX_PEERS_PER_HOST`] peers.
    #[error("there are streams to {MAX_PEERS_PER_HOST} peers")]
    TooManyPeers,
    /// The limits cannot work.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The host is closed.
    #[error("the host is closed")]
    HostClosed,
}

/// Limits could not be changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The stream, or its host, is closed.
    #[error("the stream is closed")]
    Closed,
    /// The limits cannot work.
    #[error(transparent)]
    Limits(#[from] LimitsError),
}

/// A host could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No listen address was configured.
    #[error("a host needs an address to listen on")]
    NoListenAddress,
    /// The knock's configuration has this peer in another mode than
    /// [`Mode::Frames`](libp2p_knock::Mode::Frames).
    #[error("{peer} is configured for {mode:?}: a host speaks frames with every peer")]
    Mode {
        /// The peer.
        peer: PeerId,
        /// What is configured for it.
        mode: libp2p_knock::Mode,
    },
    /// Another socket listens on the port: another host, a transport of libp2p, another program.
    #[error("{address} is in use by another socket")]
    PortInUse {
        /// The address.
        address: Multiaddr,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// Why.
        #[source]
        source: Boxed,
    },
    /// The discoverer did not start.
    #[error("the discoverer did not start")]
    Discoverer(#[source] Boxed),
}

/// Nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// These streams run in a Swarm, whose key is not ours to use.
    #[error("there is no identity to sign with")]
    NoIdentity,
    /// The identity could not sign.
    #[error(transparent)]
    Identity(#[from] libp2p_knock::SignError),
}
