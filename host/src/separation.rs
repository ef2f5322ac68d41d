//! What an application signs with a host's key, kept apart from what the protocols sign with it.

use sha2::{Digest as _, Sha256};

/// In front of everything, so that it is no TLS 1.3 transcript of anybody else's: as there, 64 spaces and a name.
const SPACES: [u8; 64] = [0x20; 64];
const NAME: &[u8] = b"ragep2p arbitrary message signing";

/// Messages up to this are signed as they are, longer ones by their SHA-256.
const WHOLE: usize = 1024;

/// What is signed for `message` in `domain`, as the original's `peeridhelper` has it.
pub(crate) fn separated(domain: &str, message: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| (bytes.len() as u64).to_be_bytes();
    let mut payload = [&SPACES[..], NAME, &[0], &length(domain.as_bytes()), domain.as_bytes()].concat();
    if message.len() <= WHOLE {
        payload.push(0);
        payload.extend_from_slice(&length(message));
        payload.extend_from_slice(message);
    } else {
        payload.push(1);
        payload.extend_from_slice(&Sha256::digest(message));
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_identity::Keypair;

    #[test]
    fn a_signature_in_a_domain_is_that_of_the_original() {
        let payload = separated("app", b"hello");
        assert_eq!(payload.len(), 123);
        let signature = Keypair::ed25519_from_bytes([1; 32]).unwrap().sign(&payload).unwrap();
        assert_eq!(
            hex::encode(signature),
            "1354e4affd5e173d95161e318f149f36cafbc4beca962d941004347a8f811df0\
             b7408950e50dace4311f57aa7daa9ad31a4769fb0c0c495c5ffd67da810fbb0b"
        );
    }

    #[test]
    fn no_two_messages_and_domains_are_signed_alike() {
        // W14: without a rule, whoever gets one thing signed may have got another.
        let long = vec![0; WHOLE + 1];
        let digest = Sha256::digest(&long);
        let all = [
            separated("ab", b"c"),
            separated("a", b"bc"),
            separated("", b"abc"),
            separated("a", &long),
            separated("a", &digest),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all[..n].iter().all(|other| other != one));
        }
    }
}
