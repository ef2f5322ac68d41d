//! Knocks made by hand by somebody who knows more than a stranger: the PeerID, a key of his own, or the listener's.

use super::*;
use crate::attacks::after_the_knock::{Client, drive};
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use libp2p_knock::internals::seal_payload;
use libp2p_knock::{Error, SignError};

/// The payload that seed 1 sends, with somebody else's key in it.
fn naming(key: [u8; 32], fresh: &Fresh, flight: &[u8]) -> [u8; 80] {
    let mut payload = [0; 80];
    payload[..32].copy_from_slice(&key);
    payload[32..40].copy_from_slice(&millis(SystemTime::now()).to_be_bytes());
    payload[40] = 1;
    payload[42..44].copy_from_slice(&u16::try_from(flight.len()).unwrap().to_be_bytes());
    payload[48..].copy_from_slice(&fresh.flight_key);
    payload
}

fn knock_naming(key: [u8; 32], flight: &[u8]) -> Vec<u8> {
    let fresh = fresh();
    let payload = naming(key, &fresh, flight);
    seal_payload(&own(1), &callee(2), &Network::open(), &fresh, &payload, flight).expect("seals")
}

#[tokio::test]
async fn a_key_that_is_not_in_every_byte_the_callers_own_is_refused_without_a_byte() {
    let target = Target::closing_after(LATE, config(2)).await;
    let hello = client_hello();
    let own_key = Identity::public_key(&key(1));
    let point = CompressedEdwardsY(own_key).decompress().unwrap();
    let turned = EIGHT_TORSION[1..]
        .iter()
        .map(|torsion| (point + torsion).compress().to_bytes());
    let small = EIGHT_TORSION.iter().map(|point| point.compress().to_bytes());
    // y = p and y = p + 1: 0 and 1, written in another way.
    let not_canonical = [0xed, 0xee].map(|low| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (low, 0x7f);
        bytes
    });
    let somebody = Identity::public_key(&key(3));
    let keys: Vec<_> = turned
        .chain(small)
        .chain(not_canonical)
        .chain([somebody, [0xff; 32]])
        .collect();
    let knocks: Vec<_> = keys.iter().map(|key| knock_naming(*key, &hello)).collect();
    target.is_silent_to_all(&knocks, "refused_key").await;
    // The knock with his own key is answered.
    let mut socket = target.listener.connect().await;
    socket.write_all(&knock_naming(own_key, &hello)).await.unwrap();
    assert_eq!(soon("the answer", socket.read_u8()).await.unwrap(), HANDSHAKE);
}

/// Noise cannot tell a key from its negative. TLS can: the certificate has to have the very bytes.
#[tokio::test]
async fn the_negative_of_the_callers_key_gets_past_the_knock_and_not_past_tls() {
    let mut target = Target::closing_after(LATE, config(2).with_handshake_timeout(LATE)).await;
    let mut negative = Identity::public_key(&key(1));
    negative[31] ^= 0x80;
    let client = Client::new(gullible_config(&rustls::version::TLS13, Some((1, 1))));
    let knock = |flight: &[u8]| knock_naming(negative, flight);
    let seen = drive(&target, client, knock, |_| Vec::new()).await;
    seen.is_one_flight_and_a_quiet_end();
    match target.listener.error().await {
        Error::WrongPeer { expected, found } => {
            assert_eq!(found, peer(1));
            assert_ne!(expected, found);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(target.knocks("accepted"), 1);
}

/// Has the listener's secret, and says that he is seed 1: half of what Noise asks of him he can work out with it.
struct Impersonator {
    stolen: Arc<dyn Identity>,
    victim: [u8; 32],
}

impl Identity for Impersonator {
    fn public_key(&self) -> [u8; 32] {
        self.victim
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        Err(SignError("he has no such key".into()))
    }

    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        let victim = CompressedEdwardsY(self.victim).decompress()?.to_montgomery().to_bytes();
        let mut base = [0; 32];
        base[0] = 9;
        // The Diffie-Hellman of his and the listener's key, from the listener's side.
        if *peer == base {
            Some(victim)
        } else {
            self.stolen.agree(&victim)
        }
    }
}

#[tokio::test]
async fn whoever_stole_the_listeners_key_can_knock_in_anybodys_name_and_comes_no_further() {
    let mut target = Target::closing_after(LATE, config(2).with_handshake_timeout(LATE)).await;
    let impersonator = Impersonator {
        stolen: local(&keypair(2)).unwrap(),
        victim: Identity::public_key(&key(1)),
    };
    let forger = StaticKey::new(Arc::new(impersonator)).expect("agrees, somehow");
    let forged = |flight: &[u8]| {
        let now = millis(SystemTime::now());
        seal(&forger, &callee(2), &Network::open(), Mode::Yamux, now, fresh(), flight).expect("seals")
    };
    let clients = [
        // With a certificate of his own, with the stolen one, with none, and with the right one and the wrong key.
        gullible_config(&rustls::version::TLS13, Some((3, 1))),
        gullible_config(&rustls::version::TLS13, Some((2, 1))),
        gullible_config(&rustls::version::TLS13, None),
        with_certificate_and_key(1, 3),
    ];
    let n = clients.len();
    let attacks = clients.map(|client| drive(&target, Client::new(client), forged, |_| Vec::new()));
    for seen in futures::future::join_all(attacks).await {
        seen.is_one_flight_and_a_quiet_end();
    }
    assert_eq!(target.knocks("accepted"), n, "the knocks themselves are in order");
    for _ in 0..n {
        let error = target.listener.error().await;
        assert!(
            matches!(error, Error::WrongPeer { .. } | Error::Tls(_) | Error::Certificate(_)),
            "{error:?}"
        );
    }
}

/// A client that shows one certificate and signs with another key.
fn with_certificate_and_key(certificate_of: u8, key_of: u8) -> rustls::ClientConfig {
    #[derive(Debug)]
    struct Always(Arc<rustls::sign::CertifiedKey>);

    impl rustls::client::ResolvesClientCert for Always {
        fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(self.0.clone())
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    let ((chain, _), (_, key)) = (rustls_identity(certificate_of, 1), rustls_identity(key_of, 1));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let mut config = gullible_config(&rustls::version::TLS13, None);
    config.client_auth_cert_resolver = Arc::new(Always(Arc::new(rustls::sign::CertifiedKey::new(chain, key))));
    config
}
