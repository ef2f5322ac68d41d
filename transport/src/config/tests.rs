use super::*;
use crate::SignError;
use libp2p_identity::KeyType;
use web_time::SystemTime;

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

fn private() -> Network {
    Network::private(b"a network", &[1; 32]).expect("a network")
}

fn local() -> Config {
    Config::new(&Keypair::generate_ed25519()).expect("Ed25519")
}

#[test]
fn a_private_network_of_an_identity_that_only_signs_is_an_error_and_not_an_open_door() {
    let identity = Local::new(&Keypair::generate_ed25519()).expect("Ed25519");
    let signer = Config::with_signer(Arc::new(Signer(identity))).expect("signs");
    assert!(matches!(
        signer.clone().with_network(private()),
        Err(ConfigError::SignerCannotKnockV3)
    ));
    // The open network is the one it is in.
    let open = signer.with_network(Network::open()).expect("asks for nothing");
    assert!(open.contradiction().is_none());
}

#[test]
fn a_private_network_and_version_2_as_the_rule_are_an_error_in_either_order() {
    let old = || local().with_version(Version::V2).expect("can sign");
    let in_network = || local().with_network(private()).expect("can agree");
    for refused in [old().with_network(private()), in_network().with_version(Version::V2)] {
        assert!(matches!(refused, Err(ConfigError::NetworkNeedsV3)), "{refused:?}");
    }
    old().with_network(Network::open()).expect("the open network");
    let left = in_network().with_network(Network::open()).expect("can agree");
    left.with_version(Version::V2).expect("left before");
    // This cannot fail, so a transport of it does.
    let go = in_network().ragep2p_compatible();
    assert!(matches!(go.contradiction(), Some(ConfigError::NetworkNeedsV3)));
    let mended = go.with_version(Version::V3).expect("can agree");
    assert!(mended.contradiction().is_none());
    // Single peers of version 2 are a decision.
    let peer = Keypair::generate_ed25519().public().to_peer_id();
    let mixed = in_network()
        .with_peer(peer, Version::V2, Mode::Frames)
        .expect("Ed25519");
    assert!(mixed.contradiction().is_none());
}

#[test]
fn what_all_clones_share_is_set_before_the_first_clone_or_not_at_all() {
    let many = NonZeroU32::new(5_000).expect("not zero");
    let clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    // Neither undoes the other.
    for config in [
        local()
            .with_max_openings(many)
            .and_then(|config| config.dangerous().with_clock(clock)),
        local()
            .dangerous()
            .with_clock(clock)
            .and_then(|config| config.with_max_openings(many)),
    ] {
        let config = config.expect("not cloned yet");
        assert_eq!(config.openings_per_second, many);
        assert_eq!(config.guard.now_ms().ok(), Some(1_000_000));
    }

    let config = local();
    let clone = config.clone();
    assert!(Arc::ptr_eq(&config.guard, &clone.guard), "one memory for both");
    drop(clone.clone());
    for config in [config, clone] {
        let late = config.clone().with_max_openings(many);
        assert!(
            matches!(
                late,
                Err(ConfigError::Cloned {
                    setting: "with_max_openings"
                })
            ),
            "{late:?}"
        );
        let late = config.dangerous().with_clock(clock);
        assert!(
            matches!(late, Err(ConfigError::Cloned { setting: "with_clock" })),
            "{late:?}"
        );
    }
}

#[test]
fn every_hook_that_was_set_is_asked_until_one_denies() {
    use std::sync::Mutex;

    let asked = Arc::new(Mutex::new(Vec::new()));
    let hook = |name: &'static str, allows: bool| {
        let asked = asked.clone();
        move |_: &PeerId, _: &ConnectedPoint| {
            asked.lock().expect("no panic").push(name);
            if allows { Ok(()) } else { Err(name.into()) }
        }
    };
    let config = local()
        .with_admission(hook("first", true))
        .with_admission(hook("second", false))
        .with_admission(hook("third", true))
        .with_secured_hook(hook("fourth", false))
        .with_secured_hook(hook("fifth", true));
    let peer = config.local_peer_id();
    let point = ConnectedPoint::Listener {
        local_addr: libp2p_core::Multiaddr::empty(),
        send_back_addr: libp2p_core::Multiaddr::empty(),
    };
    for (hook, names) in [
        (&config.admission, vec!["first", "second"]),
        (&config.secured, vec!["fourth"]),
    ] {
        let hook = hook.as_ref().expect("was set");
        let denial = hook(&peer, &point).expect_err("one of them denies");
        assert_eq!(Some(&*denial.to_string()), names.last().copied());
        assert_eq!(std::mem::take(&mut *asked.lock().expect("no panic")), names);
    }
}
