//! The certificate: ragep2p's minimal one, signed by the host key itself.
//!
//! Every field but the key and the signature is fixed (version 3, serial 0, empty names, year 1 twice, no
//! extensions), so a certificate is a constant, the key, a constant and the signature: no X.509 writer is needed.
//! Nothing in it is believed except the key, which the handshake proves and the caller compares with the peer it
//! expects; dates and names are not looked at. Source: libocr, `ragep2p/internal/mtls`.

use crate::identity::{Identity, SignError};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

/// Everything before the key. The `tbsCertificate`, which is what gets signed, starts at byte 3.
const HEAD: [u8; 72] = [
    0x30, 0x81, 0xaf, // Certificate
    0x30, 0x63, // tbsCertificate, 99 bytes
    0xa0, 0x03, 0x02, 0x01, 0x02, // version 3
    0x02, 0x01, 0x00, // serial number 0
    0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, // signature algorithm: Ed25519
    0x30, 0x00, // issuer: empty
    0x30, 0x22, // validity: year 1 to year 1
    0x18, 0x0f, 0x30, 0x30, 0x30, 0x31, 0x30, 0x31, 0x30, 0x31, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x5a, //
    0x18, 0x0f, 0x30, 0x30, 0x30, 0x31, 0x30, 0x31, 0x30, 0x31, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x5a, //
    0x30, 0x00, // subject: empty
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, // Ed25519 key, 32 bytes follow
];
/// Between the key and the signature: the algorithm once more, and the header of a 64-byte bit string.
const MIDDLE: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];
/// The `SubjectPublicKeyInfo` of an Ed25519 key, up to the key (RFC 8410, section 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const TBS: std::ops::Range<usize> = 3..104;

/// The size of every certificate [`make`] returns.
pub(crate) const SIZE: usize = 178;

/// The certificate of `identity`.
///
/// # Errors
///
/// What the identity's signer says.
pub(crate) fn make(identity: &dyn Identity) -> Result<CertificateDer<'static>, SignError> {
    let mut der = Vec::with_capacity(SIZE);
    der.extend_from_slice(&HEAD);
    der.extend_from_slice(&identity.public_key());
    let signature = identity.sign(&der[TBS])?;
    der.extend_from_slice(&MIDDLE);
    der.extend_from_slice(&signature);
    Ok(der.into())
}

/// What a certificate of [`make`] signs, and the signature.
pub(crate) fn signed_parts<'a>(certificate: &'a CertificateDer<'_>) -> (&'a [u8], &'a [u8; 64]) {
    let signature = certificate.last_chunk().expect("`make` ends with the signature");
    (&certificate[TBS], signature)
}

/// Why a certificate has no key for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Malformed,
    NotEd25519,
}

/// The Ed25519 key of any well-formed certificate: a Go peer is free to change the other fields.
///
/// The certificate's own signature is not checked, here as in Go: it would only say again, by the same key, what the
/// handshake's signature proves freshly.
pub(crate) fn key_of(certificate: &CertificateDer<'_>) -> Result<[u8; 32], Unreadable> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|_| Unreadable::Malformed)?;
    let spki = parsed.subject_public_key_info();
    spki.strip_prefix(&SPKI_HEAD)
        .and_then(|key| key.try_into().ok())
        .ok_or(Unreadable::NotEd25519)
}

/// `key` as a `SubjectPublicKeyInfo`, the form in which rustls takes a raw key.
pub(crate) fn spki(key: &[u8; 32]) -> [u8; 44] {
    let mut spki = [0; 44];
    spki[..12].copy_from_slice(&SPKI_HEAD);
    spki[12..].copy_from_slice(key);
    spki
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Local;
    use libp2p_identity::Keypair;

    fn local(seed: u8) -> Local {
        let keypair = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        Local::new(&keypair).expect("Ed25519")
    }

    #[test]
    fn the_certificate_of_seed_01_is_the_vector() {
        let expected = include_str!("../tests/vectors/certificate-seed01.hex").replace(char::is_whitespace, "");
        assert_eq!(hex::encode(make(&local(1)).expect("signs")), expected);
    }

    #[test]
    fn the_key_comes_back_out_and_equals_the_spki() {
        let identity = local(1);
        let certificate = make(&identity).expect("signs");
        assert_eq!(certificate.len(), SIZE);
        assert_eq!(key_of(&certificate), Ok(identity.public_key()));
        let parsed = ParsedCertificate::try_from(&certificate).expect("parses");
        assert_eq!(
            parsed.subject_public_key_info().as_ref(),
            &spki(&identity.public_key())[..]
        );
    }

    #[test]
    fn a_certificate_cut_or_grown_anywhere_is_refused_and_never_panics() {
        let certificate = make(&local(1)).expect("signs");
        for length in 0..SIZE {
            let cut = CertificateDer::from(&certificate[..length]);
            assert_eq!(key_of(&cut), Err(Unreadable::Malformed), "{length} bytes");
        }
        let mut grown = certificate.to_vec();
        grown.push(0);
        assert_eq!(key_of(&grown.into()), Err(Unreadable::Malformed));
    }

    #[test]
    fn a_key_that_is_not_ed25519_is_told_from_a_malformed_certificate() {
        // X25519 (1.3.101.110) instead of Ed25519 (1.3.101.112) in the key's algorithm.
        let mut other = make(&local(1)).expect("signs").to_vec();
        other[68] = 0x6e;
        assert_eq!(key_of(&other.into()), Err(Unreadable::NotEd25519));
    }
}
