//! The look that is taken at a ClientHello before rustls sees it, against what rustls makes of it then.
//!
//! | `check_hello` says | rustls |
//! | --- | --- |
//! | yes | answers with its flight, or fails; never asks again, never waits for more |
//! | no TLS 1.3, or no share for the first group in common | does not answer with its flight |
//! | not one ClientHello | may do as it likes: the form is looked at more strictly here |
//!
//! rustls' groups and its signer are empty shells, so that what is left is the reading.

use libp2p_knock::Refusal;
use libp2p_knock::internals::check_hello;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConfig, UnbufferedServerConnection};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::unbuffered::{ConnectionState, EncodeError};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, NamedGroup, SignatureAlgorithm, SignatureScheme};
use std::sync::{Arc, LazyLock};

const GROUPS: [&[&'static dyn SupportedKxGroup]; 3] = [&[&MLKEM, &X25519], &[&X25519], &[&MLKEM]];
static MLKEM: Shell = Shell(NamedGroup::X25519MLKEM768);
static X25519: Shell = Shell(NamedGroup::X25519);

static SERVERS: LazyLock<[(Vec<u16>, Arc<ServerConfig>); 3]> = LazyLock::new(|| {
    GROUPS.map(|groups| {
        let code_points = groups.iter().map(|group| group.name().into()).collect();
        (code_points, server(groups))
    })
});

/// What a ServerHello has for its random if it asks again (RFC 8446, 4.1.3).
const ASKS_AGAIN: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answers,
    AsksAgain,
    Waits,
    Fails,
}

/// The first byte says which groups the server has.
///
/// # Panics
///
/// If the two do not agree, as the table says.
pub fn run(data: &[u8]) {
    let Some((&first, flight)) = data.split_first() else {
        return;
    };
    let (groups, server) = &SERVERS[usize::from(first) % 3];
    let checked = check_hello(flight, groups);
    let outcome = outcome(server, flight);
    let agreed = match checked {
        Ok(()) => matches!(outcome, Outcome::Answers | Outcome::Fails),
        Err(Refusal::TlsVersion | Refusal::KeyShare) => outcome != Outcome::Answers,
        Err(Refusal::Hello) => true,
        Err(_) => false,
    };
    assert!(agreed, "{checked:?}, and rustls: {outcome:?}");
}

fn outcome(server: &Arc<ServerConfig>, flight: &[u8]) -> Outcome {
    let mut connection = UnbufferedServerConnection::new(server.clone()).expect("starts");
    let (mut bytes, mut start, mut sent) = (flight.to_vec(), 0, Vec::new());
    loop {
        let status = connection.process_tls_records(&mut bytes[start..]);
        start += status.discard;
        match status.state {
            Err(_) => return Outcome::Fails,
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let at = sent.len();
                if let Err(EncodeError::InsufficientSize(room)) = data.encode(&mut []) {
                    sent.resize(at + room.required_size, 0);
                }
                data.encode(&mut sent[at..]).expect("room was made");
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(_) => break,
        }
    }
    match sent.get(11..43) {
        None => Outcome::Waits,
        Some(random) if random == ASKS_AGAIN => Outcome::AsksAgain,
        Some(_) => Outcome::Answers,
    }
}

fn server(groups: &[&'static dyn SupportedKxGroup]) -> Arc<ServerConfig> {
    let provider = CryptoProvider {
        kx_groups: groups.to_vec(),
        ..aws_lc_rs::default_provider()
    };
    let own = CertifiedKey::new(vec![CertificateDer::from(vec![0; 178])], Arc::new(Unsigned));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 suites")
        .with_client_cert_verifier(Arc::new(Nobody))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// A group that agrees with everybody.
#[derive(Debug, Clone, Copy)]
struct Shell(NamedGroup);

impl SupportedKxGroup for Shell {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(*self))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}

impl ActiveKeyExchange for Shell {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(vec![7; 32]))
    }

    fn pub_key(&self) -> &[u8] {
        &[7; 32]
    }

    fn group(&self) -> NamedGroup {
        self.0
    }
}

#[derive(Debug)]
struct Unsigned;

impl SigningKey for Unsigned {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(Self) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Unsigned {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![7; 64])
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Asks for a certificate, and is never shown one.
#[derive(Debug)]
struct Nobody;

impl ClientCertVerifier for Nobody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(Error::NoCertificatesPresented)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::NoCertificatesPresented)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::NoCertificatesPresented)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
