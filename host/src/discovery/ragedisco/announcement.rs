//! Announcements: what a peer says of its own addresses, and the messages that carry them. Pure.

use super::address::{self, AddressError, MAX_ADDRESSES};
use super::wire;
use super::{MAX_MESSAGE_LENGTH, MAX_ORACLES};
use libp2p_core::Multiaddr;
use libp2p_identity::{PeerId, PublicKey, ed25519};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Before everything that is signed.
const DOMAIN: &[u8] = b"announcement for chainlink peer discovery v2.0.0";

/// Before the key in the binary form of an Ed25519 peer id: an identity multihash of 36 bytes, a protobuf with the key's
/// type and its 32 bytes.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// An announcement, or a message with announcements, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnouncementError {
    /// Not the protobuf that ragedisco sends.
    #[error("not a ragedisco message: {0}")]
    Protobuf(String),
    /// A message without any kind that ragedisco knows.
    #[error("a message of no known kind")]
    Kind,
    /// More bytes than any honest message has.
    #[error("a message of {0} bytes; the longest there is has {MAX_MESSAGE_LENGTH}")]
    TooLong(usize),
    /// No address, or more than [`MAX_ADDRESSES`].
    #[error("{0} addresses; there must be 1 to {MAX_ADDRESSES}")]
    Addresses(usize),
    /// One of the addresses.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A public key that is not of 32 bytes.
    #[error("a public key of {0} bytes")]
    Key(usize),
    /// There is no signature.
    #[error("without a signature")]
    Unsigned,
    /// The signature is not by the key in the announcement, over what is in it.
    #[error("the signature of {0} does not verify")]
    Signature(PeerId),
    /// More announcements in one message than there can be oracles.
    #[error("{0} announcements in one message; there can be {MAX_ORACLES}")]
    TooMany(usize),
    /// One announcement in a message is malformed, so all of it is refused.
    #[error("announcement {at} of the message: {error}")]
    Member {
        /// Its place, from 0.
        at: usize,
        /// What is wrong with it.
        error: Box<Self>,
    },
}

/// What a peer signed about its addresses. What is in it has the right form; whether the signature is right is known
/// only after [`Announcement::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct Announcement {
    addresses: Vec<Vec<u8>>,
    counter: u64,
    key: [u8; 32],
    signature: Vec<u8>,
}

impl Announcement {
    /// Signs `addresses`, which must be valid, with `counter` as the key `key`.
    pub(crate) fn sign<E>(
        addresses: Vec<Vec<u8>>,
        counter: u64,
        key: [u8; 32],
        sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<Self, E> {
        let signature = sign(&digest(&addresses, counter))?.to_vec();
        Ok(Self {
            addresses,
            counter,
            key,
            signature,
        })
    }

    /// Reads the stored form: one announcement, outside of any message.
    ///
    /// # Errors
    ///
    /// When it is not one, or has not the form that one must have. The signature is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, AnnouncementError> {
        if bytes.len() > MAX_MESSAGE_LENGTH {
            return Err(AnnouncementError::TooLong(bytes.len()));
        }
        let message = wire::SignedAnnouncement::decode(bytes);
        message
            .map_err(|error| AnnouncementError::Protobuf(error.to_string()))?
            .try_into()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        self.wire().encode_to_vec()
    }

    /// Whose it is, if the signature is right.
    pub fn peer(&self) -> PeerId {
        peer_of(&self.key)
    }

    /// The higher one of two replaces the lower.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Where the peer listens, as it wrote it: an IP address and a port each.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses
            .iter()
            .filter_map(|address| std::str::from_utf8(address).ok())
    }

    pub(crate) fn raw_addresses(&self) -> &[Vec<u8>] {
        &self.addresses
    }

    /// Where to dial the peer.
    pub fn multiaddrs(&self) -> impl Iterator<Item = Multiaddr> {
        self.addresses
            .iter()
            .filter_map(|bytes| address::parse(bytes).ok())
            .map(address::multiaddr)
    }

    /// Checks the signature, some 50 µs.
    ///
    /// # Errors
    ///
    /// [`AnnouncementError::Signature`] when it is not right.
    pub fn verify(&self) -> Result<(), AnnouncementError> {
        let right = ed25519::PublicKey::try_from_bytes(&self.key)
            .is_ok_and(|key| key.verify(&digest(&self.addresses, self.counter), &self.signature));
        if right {
            Ok(())
        } else {
            Err(AnnouncementError::Signature(self.peer()))
        }
    }

    fn wire(&self) -> wire::SignedAnnouncement {
        wire::SignedAnnouncement {
            addrs: self.addresses.clone(),
            counter: self.counter,
            public_key: self.key.to_vec(),
            sig: self.signature.clone(),
        }
    }
}

impl TryFrom<wire::SignedAnnouncement> for Announcement {
    type Error = AnnouncementError;

    fn try_from(message: wire::SignedAnnouncement) -> Result<Self, AnnouncementError> {
        if !(1..=MAX_ADDRESSES).contains(&message.addrs.len()) {
            return Err(AnnouncementError::Addresses(message.addrs.len()));
        }
        for bytes in &message.addrs {
            address::parse(bytes)?;
        }
        let key = <[u8; 32]>::try_from(&message.public_key[..]);
        let key = key.map_err(|_| AnnouncementError::Key(message.public_key.len()))?;
        if message.sig.is_empty() {
            return Err(AnnouncementError::Unsigned);
        }
        Ok(Self {
            addresses: message.addrs,
            counter: message.counter,
            key,
            signature: message.sig,
        })
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcement")
            .field("peer", &self.peer())
            .field("counter", &self.counter)
            .field("addresses", &self.addresses().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// One message of the stream `ragedisco/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// One announcement, sent at once when a peer's own has changed.
    Announcement(Announcement),
    /// All that the receiver may learn, sent from time to time.
    Reconcile(Vec<Announcement>),
}

impl Message {
    /// Reads a message. It allocates some 40 bytes for each of its own bytes at worst, for a moment.
    ///
    /// # Errors
    ///
    /// When it is not one, or anything in it has not the form that it must have: one malformed announcement spoils all
    /// of them. Signatures are not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, AnnouncementError> {
        if bytes.len() > MAX_MESSAGE_LENGTH {
            return Err(AnnouncementError::TooLong(bytes.len()));
        }
        let wrapper = wire::MessageWrapper::decode(bytes);
        match wrapper
            .map_err(|error| AnnouncementError::Protobuf(error.to_string()))?
            .msg
        {
            None => Err(AnnouncementError::Kind),
            Some(wire::Wrapped::SignedAnnouncement(message)) => Ok(Self::Announcement(message.try_into()?)),
            Some(wire::Wrapped::Reconcile(message)) if message.anns.len() > MAX_ORACLES => {
                Err(AnnouncementError::TooMany(message.anns.len()))
            }
            Some(wire::Wrapped::Reconcile(message)) => {
                let members = message.anns.into_iter().enumerate().map(|(at, member)| {
                    member.try_into().map_err(|error| AnnouncementError::Member {
                        at,
                        error: Box::new(error),
                    })
                });
                Ok(Self::Reconcile(members.collect::<Result<_, _>>()?))
            }
        }
    }

    /// The bytes that go over the stream.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Announcement(announcement) => wire::Wrapped::SignedAnnouncement(announcement.wire()),
            Self::Reconcile(members) => wire::Wrapped::Reconcile(wire::Reconcile {
                anns: members.iter().map(Announcement::wire).collect(),
            }),
        }
        .into_bytes()
    }
}

/// What is signed. Little-endian, unlike everything else of ragep2p.
fn digest(addresses: &[Vec<u8>], counter: u64) -> [u8; 32] {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(length(addresses.len()));
    for address in addresses {
        hash.update(length(address.len()));
        hash.update(address);
    }
    hash.update(counter.to_le_bytes());
    hash.finalize().into()
}

/// The peer of a key. Not every 32 bytes are a key; those of nobody have a peer id that nobody can be.
fn peer_of(key: &[u8; 32]) -> PeerId {
    let bytes = [&PEER_ID_PREFIX[..], key].concat();
    PeerId::from_bytes(&bytes).expect("an identity multihash of 36 bytes")
}

/// The Ed25519 key in a peer id; `None` for every other type of key.
pub(crate) fn key_of(peer: &PeerId) -> Option<[u8; 32]> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&PEER_ID_PREFIX)?.try_into().ok()?;
    PublicKey::try_decode_protobuf(&bytes[2..]).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests;
