//! The purpose of a stream: to keep a connection alive, or to carry something. Pure: the first
//! bytes of the end that opened it go in.

use crate::alive::PREAMBLE;

/// What is known of a stream's purpose. One that only keeps a connection is no use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// So many bytes were those of a stream that keeps a connection.
    Unknown(u8),
    /// It keeps a connection: [`crate::alive`].
    KeepsAlive,
    Other,
}

impl Purpose {
    /// For a stream on which nothing was said yet.
    pub(super) const NEW: Self = Self::Unknown(0);

    /// Takes note of the next bytes of the end that opened the stream.
    pub(super) fn heard(self, bytes: &[u8]) -> Self {
        let Self::Unknown(before) = self else { return self };
        let rest = PREAMBLE.get(usize::from(before)..).unwrap_or_default();
        // It keeps a connection whatever follows.
        let compared = bytes.len().min(rest.len());
        match (rest.get(..compared), bytes.get(..compared)) {
            (expected, heard) if expected != heard => Self::Other,
            _ if compared == rest.len() => Self::KeepsAlive,
            _ => u8::try_from(compared).map_or(Self::Other, |more| Self::Unknown(before.saturating_add(more))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&[u8]]) -> Purpose {
        pieces.iter().fold(Purpose::NEW, |purpose, piece| purpose.heard(piece))
    }

    #[test]
    fn a_stream_that_keeps_a_connection_is_known_in_whatever_pieces_it_speaks() {
        assert_eq!(heard(&[PREAMBLE]), Purpose::KeepsAlive);
        assert_eq!(heard(&[PREAMBLE, b"x"]), Purpose::KeepsAlive);
        let together: Vec<u8> = PREAMBLE.iter().copied().chain(*b"x").collect();
        assert_eq!(heard(&[&together]), Purpose::KeepsAlive);
        let single: Vec<&[u8]> = PREAMBLE.chunks(1).collect();
        assert_eq!(heard(&single), Purpose::KeepsAlive);
        let almost = &single[..single.len() - 1];
        assert_eq!(heard(almost), Purpose::Unknown(PREAMBLE.len() as u8 - 1));
        assert_eq!(heard(&[b""]), Purpose::NEW);
    }

    #[test]
    fn any_other_stream_is_one_from_the_first_byte_that_differs() {
        for n in 0..PREAMBLE.len() {
            let mut other = PREAMBLE.to_vec();
            other[n] ^= 1;
            assert_eq!(heard(&[&other]), Purpose::Other, "{n}");
            assert_eq!(heard(&[&other[..n], &other[n..], PREAMBLE]), Purpose::Other, "{n}");
            assert_eq!(heard(&[&other[..n]]), Purpose::Unknown(n as u8), "{n}");
        }
        assert_eq!(heard(&[b"x"]), Purpose::Other);
    }
}
