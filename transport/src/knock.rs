//! The knock: the one message a dialer sends before it has heard anything, and the only one a listener answers.
//!
//! Pure code: bytes come in, a [`Caller`] or a [`Refusal`] comes out. Nothing here reads a clock, a socket or a
//! random number, and nothing a stranger can send makes it panic or allocate.
//!
//! | version | size | hides the pair from an observer | can be replayed | spoken by |
//! | --- | --- | --- | --- | --- |
//! | [`Version::V2`] | [97 bytes](v2::SIZE) | no: both keys can be told | yes, for ever | ragep2p (Go), this crate |
//!
//! A knock is a filter against strangers, not authentication: who the peer is gets proven by TLS right after it.

pub mod v2;

use crate::identity::Key;
use libp2p_identity::PeerId;
use std::fmt;

/// Which knock is spoken. Never negotiated and never guessed: it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Version {
    /// ragep2p's, byte for byte. See [`v2`].
    #[default]
    V2,
}

/// What is spoken inside TLS. Configured, and confirmed by ALPN as far as there is any: an end that wants a muxer refuses
/// one that speaks frames before it says a byte of yamux. An end in frames mode cannot tell, as the Go original has no
/// ALPN, and sees its connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// yamux, as libp2p's stock stacks: ALPN `/yamux/1.0.0` on both sides.
    #[default]
    Yamux,
    /// ragep2p's own frames: no ALPN at all, as the Go original.
    Frames,
}

impl Mode {
    /// The one protocol offered and demanded in ALPN, or none.
    pub(crate) fn alpn(self) -> Option<&'static [u8]> {
        match self {
            Self::Yamux => Some(b"/yamux/1.0.0"),
            Self::Frames => None,
        }
    }
}

/// Who knocked: a well-formed key that signed a knock addressed to us. Only opening a knock makes one, so code that
/// holds a `Caller` need not ask whether somebody checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    key: Key,
    version: Version,
}

impl Caller {
    /// The peer the knock names. Not proven before TLS is through: a knock can be a replay.
    pub fn peer(&self) -> PeerId {
        self.key.peer_id()
    }

    /// The version of the knock.
    pub fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("peer", &self.peer())
            .field("version", &self.version)
            .finish()
    }
}

/// Why a knock was refused, in the order in which it is checked. Never told to the one who knocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The first byte is no version that is enabled here.
    #[error("first byte {0:#04x} is no knock version spoken here")]
    Version(u8),
    /// The knock carries our own key: we dialled ourselves.
    #[error("we dialled ourselves")]
    SelfDial,
    /// The key in the knock is not in its canonical encoding, or of small order.
    #[error("the caller's key is not canonical or of small order")]
    Key,
    /// The signature is not the caller's over our key: a forgery, or a knock meant for somebody else.
    #[error("the signature is not the caller's over our key")]
    Signature,
}

/// Gathers one knock from a byte stream, in whatever pieces it arrives, and never takes a byte more: what follows
/// the knock belongs to TLS.
#[derive(Debug, Clone)]
pub struct Reader {
    bytes: [u8; v2::SIZE],
    filled: usize,
}

impl Reader {
    /// An empty reader.
    pub fn new() -> Self {
        Self {
            bytes: [0; v2::SIZE],
            filled: 0,
        }
    }

    /// Where the next bytes go. Empty once the knock is complete.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Says that the first `n` bytes of [`Reader::space`] have been filled. More than there was space counts as full.
    pub fn advance(&mut self, n: usize) {
        self.filled = self.filled.saturating_add(n).min(v2::SIZE);
    }

    /// How many bytes have arrived.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Whether the knock is complete.
    pub fn is_complete(&self) -> bool {
        self.filled == v2::SIZE
    }

    /// Opens the complete knock as the owner of the key `own`; `None` while bytes are missing.
    pub fn open(&self, own: &[u8; 32]) -> Option<Result<Caller, Refusal>> {
        self.is_complete().then(|| v2::open(&self.bytes, own))
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}
