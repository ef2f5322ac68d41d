//! The knock: the one message a dialer sends before it has heard anything, and the only one a listener answers.
//!
//! Pure code: bytes come in, a [`Caller`] or a [`Refusal`] comes out. Nothing here reads a clock, a socket or a
//! random number, and nothing a stranger can send makes it panic or allocate.
//!
//! | version | size | hides the pair from an observer | can be replayed | spoken by |
//! | --- | --- | --- | --- | --- |
//! | [`Version::V2`] | [97 bytes](v2::SIZE) | no: both keys can be told | yes, for ever | ragep2p (Go), this crate |
//! | [`Version::V3`] | 220 bytes and the TLS flight | yes, from whoever does not know the listener's PeerID | no | this crate |
//!
//! A knock is a filter against strangers, not authentication: who the peer is gets proven by TLS right after it.

#[cfg_attr(
    not(feature = "internals"),
    allow(unreachable_pub, reason = "reachable through `internals` alone")
)]
pub(crate) mod reader;
pub mod v2;
#[cfg_attr(
    not(feature = "internals"),
    allow(
        unreachable_pub,
        unused_imports,
        reason = "reachable through `internals` alone, which names more than the crate needs"
    )
)]
pub(crate) mod v3;

use crate::identity::Key;
use libp2p_identity::PeerId;
use std::fmt;

/// Which knock is spoken. Never negotiated and never guessed: it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Version {
    /// ragep2p's, byte for byte. See [`v2`], and the README for what it gives away.
    V2,
    /// The sealed knock: a Noise message in a box that only the listener's PeerID opens, with the whole first TLS flight
    /// sealed behind it. Needs an [`Identity`](crate::Identity) that can [`agree`](crate::Identity::agree), and clocks
    /// that differ by 120 s at most.
    #[default]
    V3,
}

/// What is spoken inside TLS. Configured, and said in the knock: a v3 knock that says another mode than the listener's
/// configuration is refused like any other. With v2 it is confirmed by ALPN as far as there is any: an end that wants a
/// muxer refuses one that speaks frames before it says a byte of yamux. An end in frames mode cannot tell, as the Go
/// original has no ALPN, and sees its connection closed.
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

/// Who knocked: a well-formed key whose holder made a knock addressed to us. Only opening a knock makes one, so code that
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
    /// The first byte is no version that is enabled here. (v2.)
    #[error("first byte {0:#04x} is no knock version spoken here")]
    Version(u8),
    /// The box does not open: not a knock, or one for somebody else or for another network. (v3, like all that name no
    /// other version.)
    #[error("the box does not open: no knock at us in this network")]
    Box,
    /// The same knock was answered before: somebody plays it back.
    #[error("the knock was answered before")]
    Replayed,
    /// There is no budget for it at the moment.
    #[error("more is asked at the moment than is done for strangers")]
    Budget,
    /// The Noise message in the box does not open: somebody who knows our PeerID tries.
    #[error("the Noise message does not open")]
    Noise,
    /// A bit that has no meaning yet is set: a newer version of the caller's side.
    #[error("a reserved bit is set")]
    Reserved,
    /// The mode is none that is known.
    #[error("mode {0} is unknown")]
    Mode(u8),
    /// The length of the flight is none that is possible.
    #[error("a flight of {0} bytes is none")]
    FlightLength(u16),
    /// The knock's time is more than 120 s from our clock: one of the clocks is wrong, or the knock is old.
    #[error("the knock's time is more than 120 s from ours")]
    Time,
    /// The knock is from before this process began, or of a time of which knocks were answered that are not remembered any more: it
    /// cannot be told from a replay.
    #[error("the knock may have been seen before")]
    Floor,
    /// The knock carries our own key: we dialled ourselves. (v2 and v3; in v3 checked after [`Refusal::Key`].)
    #[error("we dialled ourselves")]
    SelfDial,
    /// The key in the knock is not in its canonical encoding, or of small order; or, in v3, not the one that the caller
    /// has shown to hold. (v2 and v3.)
    #[error("the caller's key is not canonical, of small order or not its own")]
    Key,
    /// The signature is not the caller's over our key: a forgery, or a knock meant for somebody else. (v2.)
    #[error("the signature is not the caller's over our key")]
    Signature,
    /// The caller is configured to knock with another version, or to speak another mode. (v2 and v3.)
    #[error("the caller is configured to knock or to speak otherwise")]
    NotConfigured,
    /// The sealed flight does not open: it is not the one that this knock was made with.
    #[error("the flight is not the one that the knock was made with")]
    Flight,
    /// The flight is not exactly one TLS record with exactly one ClientHello.
    #[error("the flight is not one ClientHello")]
    Hello,
    /// The ClientHello does not offer TLS 1.3.
    #[error("the ClientHello does not offer TLS 1.3")]
    TlsVersion,
    /// The ClientHello has no group in common with us, or none of its shares is for the first that is.
    #[error("the ClientHello has no key share for the first group in common")]
    KeyShare,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_no_alpn_as_the_original_has_none() {
        assert_eq!(Mode::Yamux.alpn(), Some(&b"/yamux/1.0.0"[..]));
        assert_eq!(Mode::Frames.alpn(), None);
    }

    #[test]
    fn a_caller_says_which_knock_was_his() {
        let mut bytes = [0; 32];
        bytes[0] = 3;
        let key = Key::check(&bytes).expect("canonical");
        for version in [Version::V2, Version::V3] {
            let caller = Caller { key, version };
            assert_eq!((caller.version(), caller.key()), (version, key));
        }
    }
}
