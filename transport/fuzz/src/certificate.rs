//! The key in a certificate, as the verifier of TLS reads it, against another reader of X.509.

use libp2p_identity::Keypair;
use libp2p_knock::internals::certificate_key;
use std::sync::LazyLock;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Object identifier 1.3.101.112, and 32 bytes in a bit string.
const ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Ours, as the transport makes it.
static OURS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let keypair = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let certificate = libp2p_knock::internals::certificate(&keypair).expect("Ed25519");
    assert!(certificate_key(&certificate).is_some());
    certificate
});

/// An even first byte: the rest is a certificate. An odd one: the rest changes ours, three bytes a change.
///
/// # Panics
///
/// If a key is read that is not there, or that the other reader does not see.
pub fn run(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    if first % 2 == 0 {
        check(rest);
        return;
    }
    let mut changed = OURS.clone();
    for change in rest.chunks_exact(3) {
        let at = usize::from(change[0]) % (changed.len() + 1);
        match change[1] % 4 {
            0 if at < changed.len() => changed[at] = change[2],
            1 => changed.insert(at, change[2]),
            2 if at < changed.len() => _ = changed.remove(at),
            3 if at < changed.len() => changed[at] ^= 1 << (change[2] % 8),
            _ => {}
        }
    }
    check(&changed);
}

fn check(der: &[u8]) {
    let read = certificate_key(der);
    if let Some(key) = read {
        let place = [ED25519, &key].concat();
        assert!(
            der.windows(place.len()).any(|bytes| bytes == place),
            "a key that is not there"
        );
    }
    // The other one is stricter about dates and names, which nobody believes here, so it may refuse what we read.
    let Ok((rest, other)) = X509Certificate::from_der(der) else {
        return;
    };
    if let Some(key) = read {
        assert!(rest.is_empty(), "something behind the certificate");
        let info = other.public_key();
        assert_eq!(info.algorithm.algorithm.to_id_string(), "1.3.101.112");
        assert_eq!(*info.subject_public_key.data, key[..]);
    }
}
