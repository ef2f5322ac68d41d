//! X25519 (RFC 7748), and the way there from an Ed25519 key pair.
//!
//! Both curves are one curve in two forms, so one identity serves for signing and for Diffie-Hellman: the secret scalar
//! of Ed25519 is an X25519 secret, and a rational map takes the public point along.

use crate::identity::Key;
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::digest::{SHA512, digest};
use curve25519_dalek::edwards::CompressedEdwardsY;

/// The u-coordinate of X25519's base point: whoever agrees with it gets his own public key.
pub(crate) const BASE_POINT: [u8; 32] = {
    let mut point = [0; 32];
    point[0] = 9;
    point
};

/// An X25519 secret.
pub(crate) struct Secret(PrivateKey);

impl Secret {
    /// Any 32 bytes will do: X25519 clamps them itself.
    pub(crate) fn new(bytes: &[u8; 32]) -> Self {
        Self(PrivateKey::from_private_key(&X25519, bytes).expect("every 32 bytes are an X25519 secret"))
    }

    /// That of the Ed25519 key whose seed this is: the lower half of its SHA-512 (RFC 8032, 5.1.5), whose clamping is
    /// X25519's.
    pub(crate) fn of_ed25519_seed(seed: &[u8; 32]) -> Self {
        let hash = digest(&SHA512, seed);
        let mut lower = [0; 32];
        lower.copy_from_slice(&hash.as_ref()[..32]);
        Self::new(&lower)
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        let public = self
            .0
            .compute_public_key()
            .expect("every X25519 secret has a public key");
        public.as_ref().try_into().expect("an X25519 public key has 32 bytes")
    }

    /// `None` if nothing of the secret went into the result, as with a `peer` of small order.
    pub(crate) fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        let shared = agreement::agree(&self.0, UnparsedPublicKey::new(&X25519, peer), (), |shared| {
            <[u8; 32]>::try_from(shared).map_err(|_| ())
        });
        shared.ok().filter(|shared| !is_zero(shared))
    }
}

/// Looks at every byte whatever they are.
pub(crate) fn is_zero(bytes: &[u8; 32]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}

/// The X25519 form of an Ed25519 public key: u = (1 + y) / (1 − y) (RFC 7748, 4.1). `None` if the bytes are no point of
/// the curve. The sign of x gets lost: a key and its negative have one form.
pub(crate) fn of_ed25519(key: &Key) -> Option<[u8; 32]> {
    let point = CompressedEdwardsY(key.bytes()).decompress()?;
    Some(point.to_montgomery().to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::EIGHT_TORSION;
    use libp2p_identity::Keypair;

    #[test]
    fn secret_and_public_key_of_an_identity_stay_a_pair() {
        for seed in [[1; 32], [2; 32], [0xff; 32]] {
            let keypair = Keypair::ed25519_from_bytes(seed).expect("32 bytes");
            let key = Key::of_peer(&keypair.public().to_peer_id()).expect("Ed25519");
            let secret = Secret::of_ed25519_seed(&seed);
            assert_eq!(of_ed25519(&key), Some(secret.public()));
            assert_eq!(secret.agree(&BASE_POINT), Some(secret.public()));
        }
    }

    #[test]
    fn a_peer_of_small_order_gets_no_answer() {
        for point in EIGHT_TORSION {
            assert_eq!(Secret::new(&[7; 32]).agree(&point.to_montgomery().to_bytes()), None);
        }
    }

    #[test]
    fn bytes_off_the_curve_have_no_other_form() {
        let mut off = [0; 32];
        off[0] = 2;
        assert_eq!(of_ed25519(&Key::check(&off).expect("canonical")), None);
    }
}
