//! Gathering a knock, whichever version it is, without a byte too many.

use super::v2;
use super::v3::HEAD;

/// Where a v2 knock has said who it claims to be from.
const CLAIM: usize = 33;

/// Gathers one v2 knock, or the head of one v3 knock, from a byte stream, in whatever pieces it arrives. Never takes a byte
/// more: what follows belongs to TLS, or to the flight.
#[derive(Debug, Clone)]
pub struct Reader {
    bytes: [u8; HEAD],
    filled: u8,
    wanted: u8,
}

/// What a [`Reader`] has gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gathered<'a> {
    /// A v2 knock.
    V2(&'a [u8; v2::SIZE]),
    /// The head of a v3 knock.
    V3(&'a [u8; HEAD]),
}

impl Reader {
    /// `v2` says whether anybody at all may knock with version 2.
    pub fn new(v2: bool) -> Self {
        Self {
            bytes: [0; HEAD],
            filled: 0,
            wanted: if v2 { CLAIM as u8 } else { HEAD as u8 },
        }
    }

    /// Where the next bytes go.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled.into()..self.wanted.into()]
    }

    /// Says that the first `n` bytes of [`Reader::space`] have been filled. `may_v2` is asked, once, whether this key may
    /// knock with version 2. Where that is asked about peers one by one, a v3 knock that looks like such a one turns up
    /// once in 2^256; where version 2 is the rule, once in 256: see [`Reader::go_on`].
    pub fn advance(&mut self, n: usize, may_v2: impl FnOnce(&[u8; 32]) -> bool) {
        self.filled = self.wanted.min(self.filled.saturating_add(n.min(HEAD) as u8));
        if usize::from(self.filled) == CLAIM && usize::from(self.wanted) == CLAIM {
            let [version, claimed @ ..] = self.bytes.first_chunk::<CLAIM>().expect("a head is longer");
            let is_v2 = *version == v2::VERSION && may_v2(claimed);
            self.wanted = if is_v2 { v2::SIZE as u8 } else { HEAD as u8 };
        }
    }

    /// Says that the v2 knock which was gathered is none: it may be the beginning of a v3 one.
    pub fn go_on(&mut self) {
        self.wanted = HEAD as u8;
    }

    /// What has been gathered, once it is complete.
    pub fn gathered(&self) -> Option<Gathered<'_>> {
        if self.filled != self.wanted {
            return None;
        }
        match usize::from(self.wanted) {
            v2::SIZE => self.bytes.first_chunk().map(Gathered::V2),
            HEAD => Some(Gathered::V3(&self.bytes)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is gathered of `stream` cut into pieces of `size`, and how many bytes were taken.
    fn gather(stream: &[u8], size: usize, v2: bool, may_v2: bool) -> (Option<Vec<u8>>, usize) {
        let (mut reader, mut taken) = (Reader::new(v2), 0);
        for mut piece in stream.chunks(size) {
            while !piece.is_empty() && reader.gathered().is_none() {
                let n = reader.space().len().min(piece.len());
                reader.space()[..n].copy_from_slice(&piece[..n]);
                reader.advance(n, |claimed| {
                    assert_eq!(claimed[..], stream[1..33], "asked for the key that is claimed");
                    may_v2
                });
                taken += n;
                piece = &piece[n..];
            }
        }
        let gathered = reader.gathered().map(|gathered| match gathered {
            Gathered::V2(knock) => knock.to_vec(),
            Gathered::V3(head) => head.to_vec(),
        });
        (gathered, taken)
    }

    #[test]
    fn every_split_gathers_the_same_and_takes_no_byte_behind_it() {
        let stream: Vec<u8> = std::iter::once(2).chain((0..=255).cycle()).take(600).collect();
        for size in 1..=300 {
            assert_eq!(gather(&stream, size, true, true), (Some(stream[..97].to_vec()), 97));
            assert_eq!(gather(&stream, size, true, false), (Some(stream[..204].to_vec()), 204));
            assert_eq!(gather(&stream, size, false, true), (Some(stream[..204].to_vec()), 204));
        }
    }

    #[test]
    fn what_does_not_begin_as_v2_is_v3_whoever_it_seems_to_claim() {
        for first in (0..=255).filter(|first| *first != 2) {
            let mut stream = [7; 300];
            stream[0] = first;
            assert_eq!(gather(&stream, 300, true, true).1, HEAD);
        }
    }

    #[test]
    fn what_was_not_v2_after_all_goes_on_to_be_a_head() {
        let stream: Vec<u8> = std::iter::once(2).chain((0..=255).cycle()).take(HEAD).collect();
        let mut reader = Reader::new(true);
        for (from, to) in [(0, 33), (33, v2::SIZE), (v2::SIZE, HEAD)] {
            reader.space()[..to - from].copy_from_slice(&stream[from..to]);
            reader.advance(to - from, |_| true);
            if to == v2::SIZE {
                assert!(matches!(reader.gathered(), Some(Gathered::V2(_))));
                reader.go_on();
                assert_eq!(reader.gathered(), None);
            }
        }
        assert_eq!(reader.gathered(), stream.first_chunk().map(Gathered::V3));
    }

    #[test]
    fn nothing_is_gathered_before_the_last_byte() {
        let stream = [2; HEAD];
        for length in 0..HEAD {
            assert_eq!(gather(&stream[..length], 50, false, false).0, None);
            assert_eq!(gather(&stream[..length], 50, true, false).0, None);
            assert_eq!(
                gather(&stream[..length], 50, true, true).0.is_some(),
                length >= v2::SIZE
            );
        }
    }
}
