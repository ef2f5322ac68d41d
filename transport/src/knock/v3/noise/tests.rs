use super::*;
use crate::identity::Local;

fn pair(once: Option<[u8; 32]>) -> Pair {
    let keypair = libp2p_identity::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let own = StaticKey::new(Arc::new(Local::new(&keypair).expect("Ed25519"))).expect("a usable key");
    Pair {
        public: own.x25519,
        own,
        ephemeral: None,
        once,
    }
}

#[test]
fn the_counter_stands_in_the_last_eight_bytes_of_a_nonce() {
    let nonce = ChaChaPoly::nonce(0x0102_0304_0506_0708);
    assert_eq!(nonce, [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn a_hash_that_was_reset_remembers_nothing() {
    let (mut once, mut anew) = ([0; 32], [0; 32]);
    let mut hash = Blake2s(Blake2s256::new());
    hash.input(b"abc");
    hash.result(&mut once);
    hash.input(b"something else");
    hash.reset();
    hash.input(b"abc");
    hash.result(&mut anew);
    assert_eq!(once, anew);
    // RFC 7693, appendix B.
    assert_eq!(
        hex::encode(once),
        "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
    );
}

#[test]
fn what_is_agreed_with_a_peer_is_remembered_and_with_a_key_of_one_message_it_is_not() {
    let peer = Secret::new(&[7; 32]).public();
    let expected = pair(None).agree_static(&peer).expect("agrees");

    let with_peer = pair(None);
    assert_eq!(with_peer.own.agreed.get(&peer), None);
    assert_eq!(with_peer.agree_static(&peer), Some(expected));
    assert_eq!(with_peer.own.agreed.get(&peer), Some(expected));

    let with_ephemeral = pair(Some(peer));
    assert_eq!(with_ephemeral.agree_static(&peer), Some(expected));
    assert_eq!(with_ephemeral.own.agreed.get(&peer), None);
}

#[test]
fn primitives_bear_the_names_of_the_pattern() {
    let name = format!(
        "Noise_IKpsk1_{}_{}_{}",
        pair(None).name(),
        ChaChaPoly(None).name(),
        Blake2s(Blake2s256::new()).name()
    );
    assert_eq!(name, PARAMS.name);
    assert_eq!((pair(None).pub_len(), pair(None).priv_len()), (32, 32));
    assert_eq!(
        pair(None).privkey(),
        b"",
        "a secret that may live elsewhere is shown to nobody"
    );
}
