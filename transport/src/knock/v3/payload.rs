//! What a knock says, innermost.
//!
//! | offset | length | content |
//! | --- | --- | --- |
//! | 0 | 32 | the dialer's Ed25519 key |
//! | 32 | 8 | the dialer's clock, Unix time in milliseconds, big-endian |
//! | 40 | 1 | mode: 1 yamux, 2 ragep2p's frames |
//! | 41 | 1 | flags, all zero |
//! | 42 | 2 | n, the length of the flight in bytes, big-endian |
//! | 44 | 4 | zero |
//! | 48 | 32 | the key under which the flight is sealed |

use super::MAX_FLIGHT;
use crate::knock::{Mode, Refusal};

pub(super) const SIZE: usize = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) key: [u8; 32],
    pub(super) time_ms: u64,
    pub(super) mode: Mode,
    /// 1 to [`MAX_FLIGHT`].
    pub(super) flight_len: u16,
    pub(super) flight_key: [u8; 32],
}

impl Payload {
    pub(super) fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..32].copy_from_slice(&self.key);
        bytes[32..40].copy_from_slice(&self.time_ms.to_be_bytes());
        bytes[40] = match self.mode {
            Mode::Yamux => 1,
            Mode::Frames => 2,
        };
        bytes[42..44].copy_from_slice(&self.flight_len.to_be_bytes());
        bytes[48..].copy_from_slice(&self.flight_key);
        bytes
    }

    /// The form only: whose the key is and whether the time will do is checked by others.
    pub(super) fn decode(bytes: &[u8; SIZE]) -> Result<Self, Refusal> {
        let (mut key, mut time, mut flight_key) = ([0; 32], [0; 8], [0; 32]);
        key.copy_from_slice(&bytes[..32]);
        time.copy_from_slice(&bytes[32..40]);
        flight_key.copy_from_slice(&bytes[48..]);

        if bytes[41] != 0 || bytes[44..48] != [0; 4] {
            return Err(Refusal::Reserved);
        }
        let mode = match bytes[40] {
            1 => Mode::Yamux,
            2 => Mode::Frames,
            unknown => return Err(Refusal::Mode(unknown)),
        };
        let flight_len = u16::from_be_bytes([bytes[42], bytes[43]]);
        if flight_len == 0 || usize::from(flight_len) > MAX_FLIGHT {
            return Err(Refusal::FlightLength(flight_len));
        }
        Ok(Self {
            key,
            time_ms: u64::from_be_bytes(time),
            mode,
            flight_len,
            flight_key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        Payload {
            key: [1; 32],
            time_ms: 0x0102_0304_0506_0708,
            mode: Mode::Frames,
            flight_len: 4096,
            flight_key: [9; 32],
        }
    }

    #[test]
    fn what_is_encoded_decodes() {
        for mode in [Mode::Yamux, Mode::Frames] {
            let payload = Payload { mode, ..payload() };
            assert_eq!(Payload::decode(&payload.encode()), Ok(payload));
        }
    }

    #[test]
    fn every_reserved_bit_is_refused() {
        for byte in [41, 44, 45, 46, 47] {
            for bit in 0..8 {
                let mut bytes = payload().encode();
                bytes[byte] ^= 1 << bit;
                assert_eq!(Payload::decode(&bytes), Err(Refusal::Reserved));
            }
        }
    }

    #[test]
    fn unknown_modes_and_impossible_lengths_are_refused() {
        let mut bytes = payload().encode();
        for mode in [0, 3, 255] {
            bytes[40] = mode;
            assert_eq!(Payload::decode(&bytes), Err(Refusal::Mode(mode)));
        }
        for flight_len in [0, 4097, u16::MAX] {
            let bytes = Payload {
                flight_len,
                ..payload()
            }
            .encode();
            assert_eq!(Payload::decode(&bytes), Err(Refusal::FlightLength(flight_len)));
        }
    }

    #[test]
    fn form_is_checked_from_the_reserved_bits_to_the_length() {
        let mut bytes = payload().encode();
        (bytes[40], bytes[41], bytes[42]) = (7, 1, 0xff);
        assert_eq!(Payload::decode(&bytes), Err(Refusal::Reserved));
        bytes[41] = 0;
        assert_eq!(Payload::decode(&bytes), Err(Refusal::Mode(7)));
    }
}
