//! ChaCha20-Poly1305 (RFC 8439), in the three places that a sealed knock has it: box, Noise, flight.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// How many bytes sealing adds.
pub const TAG: usize = 16;

pub(super) struct Aead(LessSafeKey);

impl Aead {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(
            UnboundKey::new(&CHACHA20_POLY1305, key).expect("every 32 bytes are a key"),
        ))
    }

    /// Seals `plain` into the front of `out`, tag last. Returns how many bytes that are.
    pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], authenticated: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plain.len());
        text.copy_from_slice(plain);
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(authenticated), text)
            .expect("a few kilobytes can always be sealed");
        rest[..TAG].copy_from_slice(tag.as_ref());
        plain.len() + TAG
    }

    /// Opens `sealed` into the front of `out`. Returns how many bytes that are; `None` if `sealed` is not from the
    /// holder of the key, or `out` is too short.
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        authenticated: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let (text, tag) = sealed.split_last_chunk::<TAG>()?;
        let out = out.get_mut(..text.len())?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .open_separate_gather(nonce, Aad::from(authenticated), text, tag, out)
            .ok()?;
        Some(text.len())
    }
}
