//! rustls configurations: TLS 1.3 only, one certificate on each side, and the peer pinned on both sides inside the
//! handshake, before any application byte.

use crate::certificate;
use crate::config::KeyExchange;
use crate::identity::{Identity, Key};
use crate::user_code::{Hook, UserCode};
use libp2p_identity::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, KeyLog, OtherError, SignatureAlgorithm, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;

/// Why the certificates of the other end were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateRefusal {
    /// Not exactly one certificate.
    #[error("{0} certificates instead of one")]
    Count(usize),
    /// Not a certificate at all.
    #[error("the certificate cannot be read")]
    Malformed,
    /// A certificate of a key that is not Ed25519.
    #[error("the certificate's key is not Ed25519")]
    NotEd25519,
    /// A key that is not a canonical point of full order.
    #[error("the certificate's key is no usable Ed25519 key")]
    Invalid,
    /// The certificate of somebody else.
    #[error("the certificate is {found}'s, not {expected}'s")]
    OtherPeer {
        /// Who was dialled, or who knocked.
        expected: PeerId,
        /// Whose certificate it is.
        found: PeerId,
    },
}

/// All that the handshakes of one configuration share.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    client: ClientConfig,
    own: Arc<SingleCertAndKey>,
    key_log: Arc<dyn KeyLog>,
}

impl Tls {
    pub(crate) fn new(
        identity: Arc<dyn Identity>,
        certificate: CertificateDer<'static>,
        groups: &[KeyExchange],
        key_log: Arc<dyn KeyLog>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider(groups));
        // AWS-LC gathers entropy when it is first asked for some, which takes tens of milliseconds. Rather here, once in
        // a process, than in the first handshake. Should it fail, that handshake will say so.
        let _ = provider.secure_random.fill(&mut [0]);
        let own = Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            vec![certificate],
            Arc::new(HostKey(identity)),
        )));

        // Each dial replaces the verifier; nobody is accepted by the one that stands here.
        let nobody = Arc::new(Pinned::new(&provider, None));
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(nobody)
            .with_client_cert_resolver(own.clone());
        client.enable_sni = false;
        // For `records`, and no further.
        client.enable_secret_extraction = true;
        client.resumption = Resumption::disabled();
        client.key_log = key_log.clone();
        let this = Self {
            provider,
            client,
            own,
            key_log,
        };
        Ok(this)
    }

    /// The configuration of a dialer that will talk to `peer` and nobody else, about `alpn` and nothing else.
    pub(crate) fn client(&self, peer: Key, alpn: Option<&[u8]>) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        config.alpn_protocols.extend(alpn.map(<[u8]>::to_vec));
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(Pinned::new(&self.provider, Some(peer))));
        Arc::new(config)
    }

    /// The configuration of a listener that will talk to `peer` and nobody else, about `alpn` and nothing else.
    pub(crate) fn server(&self, peer: Key, alpn: Option<&[u8]>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Pinned::new(&self.provider, Some(peer))))
            .with_cert_resolver(self.own.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        config.alpn_protocols.extend(alpn.map(<[u8]>::to_vec));
        config.key_log = self.key_log.clone();
        Ok(Arc::new(config))
    }
}

/// No server name goes out: an IP address is none. The verifier does not look at it.
pub(crate) fn no_server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

fn provider(groups: &[KeyExchange]) -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256 as AES_128, TLS13_AES_256_GCM_SHA384 as AES_256,
        TLS13_CHACHA20_POLY1305_SHA256 as CHACHA,
    };
    CryptoProvider {
        // With AES instructions GCM seals seven times faster than ChaCha20-Poly1305, without them it is the slower
        // one and its tables leak through the cache.
        cipher_suites: if has_aes_instructions() {
            vec![AES_128, AES_256, CHACHA]
        } else {
            vec![CHACHA, AES_256, AES_128]
        },
        kx_groups: groups
            .iter()
            .map(|group| match group {
                KeyExchange::X25519 => aws_lc_rs::kx_group::X25519,
                KeyExchange::X25519MlKem768 => aws_lc_rs::kx_group::X25519MLKEM768,
            })
            .collect(),
        ..aws_lc_rs::default_provider()
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}

/// A key log of the user's, for tasks of ours: where it panics nothing is logged.
#[derive(Debug)]
pub(crate) struct CaughtKeyLog {
    log: Arc<dyn KeyLog>,
    user_code: UserCode,
}

impl CaughtKeyLog {
    pub(crate) fn new(log: Arc<dyn KeyLog>, user_code: UserCode) -> Self {
        Self { log, user_code }
    }
}

impl KeyLog for CaughtKeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let _ = self
            .user_code
            .run(Hook::KeyLog, || self.log.log(label, client_random, secret));
    }

    fn will_log(&self, label: &str) -> bool {
        let will = self.user_code.run(Hook::KeyLog, || self.log.will_log(label));
        will.unwrap_or(false)
    }
}

/// Signs the handshake with the host key itself.
struct HostKey(Arc<dyn Identity>);

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey")
    }
}

impl SigningKey for HostKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(Self(self.0.clone())) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for HostKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0
            .sign(message)
            .map(Vec::from)
            .map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Lets exactly one peer through, whichever side we are on.
#[derive(Debug)]
struct Pinned {
    peer: Option<Key>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(provider: &CryptoProvider, peer: Option<Key>) -> Self {
        Self {
            peer,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// "Both sides present exactly one certificate, … its public key is Ed25519, and the raw 32 bytes equal the
    /// expected peer." (libocr, `ragep2p/internal/mtls`, in our words.) No chain, no name, no date.
    fn check(&self, first: &CertificateDer<'_>, others: usize) -> Result<(), rustls::Error> {
        let check = || {
            if others != 0 {
                return Err(CertificateRefusal::Count(others + 1));
            }
            let found = certificate::key_of(first)?;
            let expected = self.peer.ok_or(CertificateRefusal::Invalid)?;
            if found == expected.bytes() {
                return Ok(());
            }
            let found = Key::check(&found).map_err(|_| CertificateRefusal::Invalid)?;
            Err(CertificateRefusal::OtherPeer {
                expected: expected.peer_id(),
                found: found.peer_id(),
            })
        };
        check().map_err(|refusal| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
        })
    }

    /// The handshake's signature, by the key that `check` has compared with the expected peer.
    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = certificate::key_of(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let spki = certificate::spki(&key);
        let spki = SubjectPublicKeyInfoDer::from(&spki[..]);
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

/// TLS 1.2 is not offered, so rustls never asks.
fn no_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOfferedOrEnabled)
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates.len())
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Pinned {
    /// No hints: a Go peer sends its certificate only when the list of acceptable issuers is empty or matches.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates.len())
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
