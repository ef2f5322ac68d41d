use super::*;
use crate::SignError;
use libp2p_identity::KeyType;

#[test]
fn every_other_key_type_is_refused_by_name() {
    for (keypair, expected) in [
        (Keypair::generate_secp256k1(), KeyType::Secp256k1),
        (Keypair::generate_ecdsa(), KeyType::Ecdsa),
        (rsa(), KeyType::RSA),
    ] {
        match Config::new(&keypair) {
            Err(ConfigError::UnsupportedKeyType { found }) => assert_eq!(found, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

fn rsa() -> Keypair {
    let mut pkcs8 = include_bytes!("../../tests/vectors/rsa-2048.pk8").to_vec();
    Keypair::rsa_from_pkcs8(&mut pkcs8).expect("an RSA key")
}

struct Broken {
    key: [u8; 32],
    signature: Option<[u8; 64]>,
}

impl Identity for Broken {
    fn public_key(&self) -> [u8; 32] {
        self.key
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        self.signature.ok_or_else(|| SignError("the agent is gone".into()))
    }
}

#[test]
fn an_identity_that_cannot_work_is_found_before_the_first_connection() {
    let good = Local::new(&Keypair::generate_ed25519()).expect("Ed25519").public_key();
    let config = |key, signature| Config::with_signer(Arc::new(Broken { key, signature }));
    assert!(matches!(config([0; 32], None), Err(ConfigError::InvalidKey(_))));
    assert!(matches!(config(good, None), Err(ConfigError::Sign(_))));
    assert!(matches!(config(good, Some([1; 64])), Err(ConfigError::SignerMismatch)));
}

/// Signs, and does nothing else.
struct Signer(Local);

impl Identity for Signer {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.0.sign(message)
    }
}

#[test]
fn an_identity_that_only_signs_knocks_with_version_2_or_not_at_all() {
    let signer = || Arc::new(Signer(Local::new(&Keypair::generate_ed25519()).expect("Ed25519")));
    assert!(matches!(
        Config::with_identity(signer()),
        Err(ConfigError::SignerCannotKnockV3)
    ));
    let config = Config::with_signer(signer()).expect("signs");
    assert_eq!(config.dialect.version, Version::V2);
    let peer = Keypair::generate_ed25519().public().to_peer_id();
    let v3 = [
        config.clone().with_version(Version::V3),
        config.with_peer(peer, Version::V3, Mode::Yamux),
    ];
    for refused in v3 {
        assert!(matches!(refused, Err(ConfigError::SignerCannotKnockV3)));
    }
}

#[test]
fn a_peer_may_knock_otherwise_than_the_rest() {
    let config = Config::new(&Keypair::generate_ed25519()).expect("Ed25519");
    let peer = Keypair::generate_ed25519().public().to_peer_id();
    let other = Keypair::generate_ed25519().public().to_peer_id();
    let dialect = |config: &Config, peer| config.dialect(&Key::of_peer(peer).expect("Ed25519"));
    assert_eq!(config.v2_peers(), Some(0));
    let mixed = config
        .clone()
        .with_peer(peer, Version::V2, Mode::Frames)
        .expect("Ed25519");
    assert_eq!(mixed.v2_peers(), Some(1));
    assert_eq!(dialect(&mixed, &peer).version, Version::V2);
    assert_eq!(dialect(&mixed, &other), Dialect::default());
    let go = config.ragep2p_compatible();
    assert_eq!(go.v2_peers(), None);
    assert_eq!(
        (dialect(&go, &peer).version, dialect(&go, &peer).mode),
        (Version::V2, Mode::Frames)
    );
    let secp = Keypair::generate_secp256k1().public().to_peer_id();
    assert!(matches!(
        go.with_peer(secp, Version::V2, Mode::Yamux),
        Err(ConfigError::UnsupportedPeer { .. })
    ));
}

#[test]
fn a_configuration_shows_no_secret() {
    let keypair = Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
    let shown = format!("{:?}", Config::new(&keypair).expect("Ed25519"));
    assert!(!shown.contains("7, 7, 7"), "{shown}");
    assert!(shown.contains(&keypair.public().to_peer_id().to_string()));
}
