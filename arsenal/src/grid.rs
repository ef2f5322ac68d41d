//! The grid of probes: lengths × contents × deliveries × endings. Which probe has which number follows from the seed.

use crate::content::Content;
use crate::rng::Rng;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Lengths at which some listener has been seen to behave otherwise, and their neighbours: field ends of knocks and of
/// other protocols, segment sizes, powers of two.
pub const LENGTHS: [usize; 32] = [
    0, 1, 2, 16, 31, 32, 33, 59, 60, 61, 91, 96, 97, 98, 128, 203, 204, 205, 220, 256, 380, 1024, 1398, 1399, 1400,
    1448, 1500, 1618, 4096, 4316, 65_536, 1_048_576,
];

/// From here on a length comes up less often, the longer it is.
const LONG: usize = 32_768;

/// Byte at a time only up to here, so that a probe's bytes are all sent well before it is over.
const DRIBBLE_UP_TO: usize = 256;

/// How a probe's bytes are handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// In one write.
    Whole,
    /// A write for each byte, a millisecond apart.
    ByteAtATime,
}

/// What a probe does once its bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Waits for the listener to close.
    Hold,
    /// Shuts down its own direction, then waits for the listener to close.
    Fin,
    /// Resets the connection after a moment.
    Rst,
    /// Closes the socket after a moment.
    Close,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hold, Self::Fin, Self::Rst, Self::Close];
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hold => "hold",
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::Close => "close",
        })
    }
}

impl std::str::FromStr for Ending {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|ending| ending.to_string() == text);
        known.ok_or_else(|| format!("{text}: not one of hold, fin, rst, close"))
    }
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// Its number, from which and the seed its bytes follow.
    pub index: u64,
    /// How many bytes; those of a capture are as many as it has.
    pub length: usize,
    /// Which bytes.
    pub content: Content,
    /// In how many writes.
    pub delivery: Delivery,
    /// And then.
    pub ending: Ending,
}

/// The `index`-th probe under `seed`, with a generator for its bytes.
pub fn probe(seed: u64, index: u64, contents: &[Content], endings: &[Ending]) -> (Probe, Rng) {
    let mut rng = Rng::for_index(seed, index);
    let length = length(&mut rng);
    let content = rng.pick(contents).copied().unwrap_or(Content::Random);
    let dribble = length <= DRIBBLE_UP_TO && !content.has_own_length() && rng.below(8) == 0;
    let probe = Probe {
        index,
        length,
        content,
        delivery: if dribble {
            Delivery::ByteAtATime
        } else {
            Delivery::Whole
        },
        ending: rng.pick(endings).copied().unwrap_or(Ending::Hold),
    };
    (probe, rng)
}

fn length(rng: &mut Rng) -> usize {
    loop {
        let length = rng.pick(&LENGTHS).copied().unwrap_or(0);
        // 64 KiB: one draw in two stays; 1 MiB: one in 32.
        if length < LONG || rng.below(length / LONG) == 0 {
            return length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn ten_thousand_probes_meet_every_length_with_every_ending_and_long_ones_seldom() {
        let mut met: HashMap<(usize, Ending), usize> = HashMap::new();
        for index in 0..10_000 {
            let (probe, _) = probe(1, index, &Content::PLAIN, &Ending::ALL);
            *met.entry((probe.length, probe.ending)).or_default() += 1;
        }
        assert_eq!(met.len(), LENGTHS.len() * Ending::ALL.len(), "some cell is empty");
        let of = |length| Ending::ALL.iter().map(|ending| met[&(length, *ending)]).sum::<usize>();
        assert!(of(1 << 20) * 20 < of(97), "{} of {}", of(1 << 20), of(97));
    }

    #[test]
    fn a_probe_follows_from_seed_and_number() {
        let (a, mut bytes_a) = probe(9, 123, &Content::PLAIN, &Ending::ALL);
        let (b, mut bytes_b) = probe(9, 123, &Content::PLAIN, &Ending::ALL);
        assert_eq!((a, bytes_a.bytes(32)), (b, bytes_b.bytes(32)));
    }
}
