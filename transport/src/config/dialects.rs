//! Which knock each peer has, what is spoken with it, and in which network.

use super::Config;
use crate::error::ConfigError;
use crate::identity::Key;
use crate::knock::v3::{Gate, Network, StaticKey};
use crate::knock::{Mode, Version};
use libp2p_identity::PeerId;
use std::fmt;
use std::sync::Arc;

/// How a peer knocks, and what is spoken then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Dialect {
    pub(crate) version: Version,
    pub(crate) mode: Mode,
}

impl Dialect {
    /// The one protocol that TLS negotiates: a sealed knock has said everything before.
    pub(crate) fn alpn(self) -> Option<&'static [u8]> {
        match self.version {
            Version::V2 => self.mode.alpn(),
            Version::V3 => None,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Theirs::from(*self).fmt(f)
    }
}

/// How a caller knocks, as far as its knock says: one of version 2 says nothing of the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Theirs {
    pub(crate) version: Version,
    pub(crate) mode: Option<Mode>,
}

impl From<Dialect> for Theirs {
    fn from(dialect: Dialect) -> Self {
        Self {
            version: dialect.version,
            mode: Some(dialect.mode),
        }
    }
}

impl fmt::Display for Theirs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.version {
            Version::V2 => "knock version 2",
            Version::V3 => "knock version 3",
        })?;
        f.write_str(match self.mode {
            Some(Mode::Yamux) => ", yamux",
            Some(Mode::Frames) => ", frames",
            None => "",
        })
    }
}

/// What sealed knocks are made and opened with.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) own: StaticKey,
    pub(crate) network: Network,
    pub(crate) gate: Gate,
}

impl Sealed {
    pub(super) fn new(own: StaticKey, network: Network) -> Self {
        let gate = Gate::new(own.clone(), &network);
        Self { own, network, gate }
    }
}

impl Config {
    /// Which knock is sent to, and understood from, every peer that has no version of its own.
    /// Default [`Version::V3`].
    ///
    /// Exactly one for each peer, on both sides. Nothing is negotiated, learnt or fallen back to:
    /// an attacker that drops packets could choose the weaker one otherwise. What version 2 gives
    /// away is in `SECURITY.md`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::SignerCannotKnockV3`] for an identity that can only sign, and
    /// [`ConfigError::NetworkNeedsV3`] for [`Version::V2`] in a private network.
    pub fn with_version(mut self, version: Version) -> Result<Self, ConfigError> {
        self.dialect.version = self.can(version)?;
        match self.contradiction() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// What is spoken inside TLS with every peer that has no mode of its own. Default
    /// [`Mode::Yamux`]. [`Mode::Frames`] is for [`Authenticated`] alone: it is what Go's ragep2p
    /// speaks. A transport with a muxer answers dials to such a peer with [`Error::NotMuxed`] and
    /// its knocks with silence.
    ///
    /// [`Authenticated`]: crate::Authenticated
    /// [`Error::NotMuxed`]: crate::Error::NotMuxed
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.dialect.mode = mode;
        self
    }

    /// How one peer knocks and what is spoken with it, whatever holds for all others. A peer that
    /// has [`Version::V2`] knocks from outside of a private network as well.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnsupportedPeer`] for a peer whose key is not Ed25519, and
    /// [`ConfigError::SignerCannotKnockV3`].
    pub fn with_peer(mut self, peer: PeerId, version: Version, mode: Mode) -> Result<Self, ConfigError> {
        let key = Key::of_peer(&peer).map_err(|reason| ConfigError::UnsupportedPeer { peer, reason })?;
        let version = self.can(version)?;
        Arc::make_mut(&mut self.peers).insert(key, Dialect { version, mode });
        Ok(self)
    }

    /// As Go's ragep2p: [`Version::V2`] and [`Mode::Frames`] with every peer that has none of its
    /// own. Nodes of ours among them get the better knock by [`Config::with_peer`], on both sides.
    ///
    /// In a private network this would let in every peer that knows our PeerID, so a transport
    /// refuses to listen and to dial, with [`ConfigError::NetworkNeedsV3`]. Name the peers of
    /// version 2 by [`Config::with_peer`] there.
    pub fn ragep2p_compatible(mut self) -> Self {
        self.dialect = Dialect {
            version: Version::V2,
            mode: Mode::Frames,
        };
        self
    }

    /// The network to knock in. Default [`Network::open`], in which every peer that knows our
    /// PeerID can knock. In a private network it needs the network's secret as well. Peers of other
    /// networks meet the silence that strangers meet. Knocks of version 2 know of no networks.
    ///
    /// # Errors
    ///
    /// For a private network [`ConfigError::SignerCannotKnockV3`] if the identity can only sign,
    /// and [`ConfigError::NetworkNeedsV3`] if version 2 is the rule.
    pub fn with_network(mut self, network: Network) -> Result<Self, ConfigError> {
        let private = network.name().is_some();
        match self.sealed.take() {
            Some(sealed) => self.sealed = Some(Sealed::new(sealed.own, network)),
            None if private => return Err(ConfigError::SignerCannotKnockV3),
            None => {}
        }
        match self.contradiction() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// What of the settings would be without effect beside others of them. Each by itself is in
    /// order, so that this is known only when no other can follow.
    pub(crate) fn contradiction(&self) -> Option<ConfigError> {
        let private = self
            .sealed
            .as_ref()
            .is_some_and(|sealed| sealed.network.name().is_some());
        (private && self.dialect.version == Version::V2).then_some(ConfigError::NetworkNeedsV3)
    }

    /// The private network that is knocked in, as text.
    pub(crate) fn network_name(&self) -> Option<String> {
        let name = self.sealed.as_ref()?.network.name()?;
        Some(name.escape_ascii().to_string())
    }

    fn can(&self, version: Version) -> Result<Version, ConfigError> {
        match version {
            Version::V3 if self.sealed.is_none() => Err(ConfigError::SignerCannotKnockV3),
            version => Ok(version),
        }
    }

    /// How `peer` knocks and is knocked at.
    pub(crate) fn dialect(&self, peer: &Key) -> Dialect {
        self.peers.get(peer).copied().unwrap_or(self.dialect)
    }

    fn dialects(&self) -> impl Iterator<Item = &Dialect> {
        self.peers.values().chain([&self.dialect])
    }

    /// Whether a sealed knock may begin as any knock of version 2 does: version 2 is the rule, so
    /// that every key will do, and some peer has version 3 all the same.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let sealed = |dialect: &Dialect| dialect.version == Version::V3;
        self.dialect.version == Version::V2 && self.peers.values().any(sealed)
    }

    /// How many peers may knock with version 2. `None`: all.
    pub(crate) fn v2_peers(&self) -> Option<usize> {
        let v2 = |dialect: &&Dialect| dialect.version == Version::V2;
        (!v2(&&self.dialect)).then(|| self.peers.values().filter(v2).count())
    }

    /// Whether yamux is spoken with any peer.
    pub(crate) fn speaks_yamux(&self) -> bool {
        self.dialects().any(|dialect| dialect.mode == Mode::Yamux)
    }
}
