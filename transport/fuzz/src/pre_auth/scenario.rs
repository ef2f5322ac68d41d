//! What the fuzzer decides: a listener, and what it hears one after the other. Zeros stand for what is right, so that
//! every single fault can be had by itself.

use arbitrary::{Arbitrary, Result, Unstructured};

/// More only makes a run slower: the smallest budget is gone after four.
pub const STEPS: usize = 8;

#[derive(Debug, Arbitrary)]
pub struct Scenario {
    /// Which listener.
    pub house: u8,
    /// Whether its process has just begun, or runs since long.
    pub young: bool,
    #[arbitrary(with = at_most::<STEPS, _>)]
    pub steps: Vec<Step>,
}

/// Something heard on a new socket.
#[derive(Debug, Arbitrary)]
pub struct Step {
    /// How far the wall clock is set before, beside the time that passes.
    pub set: Shift,
    /// How much time passes before, in milliseconds.
    pub passes: u16,
    pub what: What,
    /// From which of four networks.
    pub from: u8,
    /// Changes on the way: where, and by what.
    #[arbitrary(with = at_most::<3, _>)]
    pub flips: Vec<(u16, u8)>,
    /// How much of it arrives, if not all.
    pub cut: Option<u16>,
    /// Bytes behind it.
    pub more: u8,
    /// The lengths of the pieces in which it arrives; the last one takes what is left.
    #[arbitrary(with = at_most::<6, _>)]
    pub pieces: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
pub enum What {
    Sealed(Sealed),
    /// One of those before, as it was, or in a new box.
    Again {
        which: u8,
        nonce: Option<[u8; 12]>,
    },
    V2 {
        dialer: u8,
        for_another: bool,
    },
    Bytes(#[arbitrary(with = at_most::<256, _>)] Vec<u8>),
}

/// A knock that opens, but for what is said here.
#[derive(Debug, Arbitrary)]
pub struct Sealed {
    pub dialer: u8,
    pub ephemeral: Ephemeral,
    pub nonce: [u8; 2],
    /// Box and Noise message may be for another listener, or of another network.
    pub box_for_another: bool,
    pub noise_for_another: bool,
    pub box_of_another: bool,
    pub noise_of_another: bool,
    pub key: Claim,
    pub time: Shift,
    pub mode: Option<u8>,
    pub flags: u8,
    pub reserved: Option<(u8, u8)>,
    pub length: Option<u16>,
    /// Changes in the Noise message before it is put into its box.
    #[arbitrary(with = at_most::<2, _>)]
    pub flips: Vec<(u8, u8)>,
    pub flight: Flight,
    pub flight_key: u8,
    pub other_flight_key: bool,
}

#[derive(Debug, Arbitrary)]
pub enum Ephemeral {
    Of(u8),
    /// Of small order.
    Small(u8),
}

/// The Ed25519 key that the payload names.
#[derive(Debug, Arbitrary)]
pub enum Claim {
    Own,
    /// The other one with this X25519 form.
    Negative,
    Other(u8),
    Small(u8),
    /// y + p: a second way to write a key.
    Unreduced(u8),
    Any([u8; 32]),
}

#[derive(Debug, Arbitrary)]
pub enum Flight {
    Hello(Hello),
    Any(#[arbitrary(with = at_most::<300, _>)] Vec<u8>),
    /// Of that many bytes, and nothing sensible in it.
    Long(u16),
}

#[derive(Debug, Arbitrary)]
pub struct Hello {
    /// Bits: X25519MLKEM768 first, an unknown one first, X25519 missing.
    pub groups: u8,
    /// As above.
    pub shares: u8,
    /// Bits: TLS 1.3 missing, TLS 1.2 too, the extension missing.
    pub versions: u8,
    #[arbitrary(with = at_most::<2, _>)]
    pub flips: Vec<(u8, u8)>,
}

/// A difference in milliseconds; most of the interest lies about 120 s.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Shift {
    None,
    Ahead(i8),
    Behind(i8),
    Any(i32),
    /// To the very beginning or the very end.
    End(bool),
}

impl Shift {
    pub fn of(self, time_ms: u64) -> u64 {
        match self {
            Self::None => time_ms,
            Self::Ahead(off) => time_ms.saturating_add(120_000).saturating_add_signed(off.into()),
            Self::Behind(off) => time_ms.saturating_sub(120_000).saturating_add_signed(off.into()),
            Self::Any(off) => time_ms.saturating_add_signed(off.into()),
            Self::End(late) => {
                if late {
                    u64::MAX
                } else {
                    0
                }
            }
        }
    }
}

fn at_most<'a, const N: usize, T: Arbitrary<'a>>(u: &mut Unstructured<'a>) -> Result<Vec<T>> {
    u.arbitrary_iter()?.take(N).collect()
}
