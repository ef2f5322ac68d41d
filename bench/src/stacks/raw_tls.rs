//! Mutual TLS 1.3 with Ed25519 certificates, as lean as rustls allows.

use anyhow::Result;
use libp2p_identity::Keypair;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, NamedGroup, PeerIncompatible,
    ServerConfig, SignatureScheme,
};
use std::sync::Arc;

/// The same kind of certificate, the same key exchange and the same order of cipher suites as the knock transport.
pub(super) fn configs(group: NamedGroup) -> Result<(ClientConfig, ServerConfig)> {
    use aws_lc_rs::cipher_suite as suite;
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: aws_lc_rs::ALL_KX_GROUPS
            .iter()
            .copied()
            .filter(|known| known.name() == group)
            .collect(),
        ..aws_lc_rs::default_provider()
    });
    let (certificate, key) = self_signed()?;
    let anybody = Arc::new(Ed25519Only(provider.signature_verification_algorithms));

    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(anybody.clone())
        .with_client_auth_cert(vec![certificate.clone()], key.clone_key().into())?;
    client.enable_sni = false;
    client.resumption = Resumption::disabled();

    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(anybody)
        .with_single_cert(vec![certificate], key.into())?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok((client, server))
}

const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The 178 bytes that the knock transport presents too: empty names, year 1, no extensions, signed by its own key.
fn self_signed() -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>)> {
    const ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    const YEAR_ONE: &[u8; 17] = b"\x18\x0f00010101000000Z";
    let key = Keypair::generate_ed25519();
    let ed25519 = key.clone().try_into_ed25519()?;

    let mut der = vec![0x30, 0x81, 0xaf, 0x30, 0x63];
    der.extend([0xa0, 0x03, 0x02, 0x01, 0x02, 0x02, 0x01, 0x00]); // version 3, serial number 0
    der.extend(ED25519);
    der.extend([0x30, 0x00, 0x30, 0x22]); // issuer, validity
    der.extend(YEAR_ONE);
    der.extend(YEAR_ONE);
    der.extend([0x30, 0x00]); // subject
    der.extend(SPKI_HEAD);
    der.extend(ed25519.public().to_bytes());
    let signature = key.sign(&der[3..])?;
    der.extend(ED25519);
    der.extend([0x03, 0x41, 0x00]);
    der.extend(signature);

    let mut pkcs8 = vec![0x30, 0x2e, 0x02, 0x01, 0x00];
    pkcs8.extend(ED25519);
    pkcs8.extend([0x04, 0x22, 0x04, 0x20]);
    pkcs8.extend(ed25519.secret().as_ref());
    Ok((der.into(), pkcs8.into()))
}

/// Lets everybody in who proves to hold an Ed25519 key: the one signature check that each side cannot do without.
#[derive(Debug)]
struct Ed25519Only(WebPkiSupportedAlgorithms);

impl Ed25519Only {
    fn check(certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        if parsed.subject_public_key_info().starts_with(&SPKI_HEAD) {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.0)
    }
}

impl ServerCertVerifier for Ed25519Only {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::check(certificate).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Ed25519Only {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::check(certificate).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
