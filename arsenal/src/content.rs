//! What a probe sends: noise, other protocols' first words, and what can be made of recorded flights.

use crate::gate::GateKey;
use crate::rng::Rng;
use anyhow::{Context as _, Result, anyhow};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A kind of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Uniform bytes.
    Random,
    /// Zero bytes.
    Zeros,
    /// 02, then uniform bytes: what a knock of version 2 begins with.
    V2Like,
    /// A real ClientHello of TLS 1.3, with a server name.
    ClientHello,
    /// A GET request.
    Http,
    /// The banner of an SSH client.
    Ssh,
    /// The first words of multistream-select, as every stock libp2p dialer says them.
    Multistream,
    /// A box that opens for whoever knows the PeerId, with noise inside.
    SealedNoise,
    /// A recorded flight as it was.
    Capture,
    /// One with one bit flipped, anywhere.
    FlippedCapture,
    /// The beginning of one.
    CutCapture,
    /// A recorded sealed knock under another outer nonce.
    RewrappedCapture,
}

impl Content {
    /// Those that need nothing but a seed.
    pub const PLAIN: [Self; 7] = [
        Self::Random,
        Self::Zeros,
        Self::V2Like,
        Self::ClientHello,
        Self::Http,
        Self::Ssh,
        Self::Multistream,
    ];

    /// Whether its length is its own, whatever the grid says.
    pub fn has_own_length(self) -> bool {
        matches!(self, Self::Capture | Self::FlippedCapture | Self::RewrappedCapture)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Zeros => "zeros",
            Self::V2Like => "v2-like",
            Self::ClientHello => "client-hello",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Multistream => "multistream",
            Self::SealedNoise => "sealed-noise",
            Self::Capture => "capture",
            Self::FlippedCapture => "flipped-capture",
            Self::CutCapture => "cut-capture",
            Self::RewrappedCapture => "rewrapped-capture",
        })
    }
}

/// What contents are made from.
#[derive(Debug)]
pub struct Pantry {
    hello: Vec<u8>,
    captures: Vec<Vec<u8>>,
    /// Captures whose box opens for `gate`.
    sealed: Vec<Vec<u8>>,
    gate: Option<GateKey>,
}

impl Pantry {
    /// With recorded flights, and with the key of the listener's box for whoever knows its PeerId.
    ///
    /// # Errors
    ///
    /// When no ClientHello can be made.
    pub fn new(captures: Vec<Vec<u8>>, gate: Option<GateKey>) -> Result<Self> {
        let mut rng = Rng::new(0);
        let sealed = gate.as_ref().map_or_else(Vec::new, |gate| {
            let opens = |flight: &&Vec<u8>| gate.rewrap(flight, &mut rng).is_some();
            captures.iter().filter(opens).cloned().collect()
        });
        Ok(Self {
            hello: client_hello()?,
            captures,
            sealed,
            gate,
        })
    }

    /// What can be made: the plain contents, and those for which there are captures or a key.
    pub fn contents(&self) -> Vec<Content> {
        let mut contents = Content::PLAIN.to_vec();
        if self.gate.is_some() {
            contents.push(Content::SealedNoise);
        }
        if !self.captures.is_empty() {
            contents.extend([Content::Capture, Content::FlippedCapture, Content::CutCapture]);
        }
        if !self.sealed.is_empty() {
            contents.push(Content::RewrappedCapture);
        }
        contents
    }

    /// The bytes of `content`, `length` of them where it has no length of its own. A content shorter than that goes on
    /// with uniform bytes; one that cannot be made is uniform bytes altogether.
    pub fn bytes(&self, content: Content, length: usize, rng: &mut Rng) -> Vec<u8> {
        let special = match content {
            Content::Random => Some(Vec::new()),
            Content::Zeros => Some(vec![0; length]),
            Content::V2Like => Some(vec![2]),
            Content::ClientHello => Some(self.hello.clone()),
            Content::Http => {
                Some(b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n".to_vec())
            }
            Content::Ssh => Some(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
            Content::Multistream => Some(b"\x13/multistream/1.0.0\n\x07/noise\n".to_vec()),
            Content::SealedNoise => self.gate.as_ref().and_then(|gate| gate.seal_noise(0, rng)),
            Content::Capture | Content::CutCapture => rng.pick(&self.captures).cloned(),
            Content::FlippedCapture => rng.pick(&self.captures).cloned().map(|mut flight| {
                let bit = rng.below(flight.len() * 8);
                flight[bit / 8] ^= 1 << (bit % 8);
                flight
            }),
            Content::RewrappedCapture => match (&self.gate, rng.pick(&self.sealed)) {
                (Some(gate), Some(flight)) => gate.rewrap(flight, rng),
                _ => None,
            },
        };
        let mut bytes = match special {
            Some(bytes) if content.has_own_length() => return bytes,
            Some(bytes) => bytes,
            None => Vec::new(),
        };
        // The whole flight would be a replay, which is a content of its own.
        let most = if content == Content::CutCapture {
            length.min(bytes.len().saturating_sub(1))
        } else {
            length
        };
        let had = bytes.len();
        bytes.resize(most, 0);
        if had < most {
            rng.fill(&mut bytes[had..]);
        }
        bytes
    }
}

/// The first flight of an ordinary TLS client.
///
/// # Errors
///
/// When rustls cannot make one.
pub fn client_hello() -> Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = "example.com".try_into().map_err(|e| anyhow!("no server name: {e}"))?;
    let mut client = ClientConnection::new(Arc::new(config), name)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).context("a vector takes any write")?;
    Ok(hello)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_content_has_the_length_asked_for_and_its_own_beginning() {
        let pantry = Pantry::new(Vec::new(), None).unwrap();
        let mut rng = Rng::new(3);
        for content in pantry.contents() {
            for length in [0, 1, 97, 4096] {
                assert_eq!(pantry.bytes(content, length, &mut rng).len(), length, "{content}");
            }
        }
        assert_eq!(pantry.bytes(Content::V2Like, 97, &mut rng)[0], 2);
        assert_eq!(pantry.bytes(Content::ClientHello, 97, &mut rng)[0], 22);
        assert!(pantry.bytes(Content::Http, 4096, &mut rng).starts_with(b"GET / "));
    }

    #[test]
    fn captures_are_replayed_flipped_in_one_bit_cut_and_rewrapped() {
        let mut rng = Rng::new(3);
        let gate = GateKey::new(&[9; 32]).unwrap();
        let flight = gate.seal_noise(500, &mut rng).unwrap();
        let pantry = Pantry::new(vec![flight.clone()], Some(gate)).unwrap();
        assert_eq!(pantry.contents().len(), Content::PLAIN.len() + 5);
        assert_eq!(pantry.bytes(Content::Capture, 1, &mut rng), flight);

        let flipped = pantry.bytes(Content::FlippedCapture, 1, &mut rng);
        let bits: u32 = flipped.iter().zip(&flight).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(bits, 1);

        assert_eq!(pantry.bytes(Content::CutCapture, 300, &mut rng), flight[..300]);
        assert_eq!(
            pantry.bytes(Content::CutCapture, 4096, &mut rng),
            flight[..flight.len() - 1]
        );

        let again = pantry.bytes(Content::RewrappedCapture, 1, &mut rng);
        assert_eq!(again.len(), flight.len());
        assert_ne!(again[..204], flight[..204]);
        assert_eq!(again[204..], flight[204..]);
    }
}
