//! TLS records after the handshake: from a peer that holds the keys and lies, with somebody on the way who changes,
//! drops and repeats what he likes, and from that somebody alone.

use arbitrary::{Arbitrary, Result, Unstructured};
use libp2p_identity::Keypair;
use libp2p_knock::Config;
use libp2p_knock::internals::{Heard, Line};
use std::cell::RefCell;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const HEADER: usize = 5;
/// The most that a record may take.
const MAX: usize = HEADER + (1 << 14) + 256;

#[derive(Debug, Arbitrary)]
struct Scenario {
    listener_speaks: bool,
    #[arbitrary(with = at_most::<12, _>)]
    acts: Vec<Act>,
}

#[derive(Debug, Arbitrary)]
enum Act {
    Say {
        kind: Kind,
        #[arbitrary(with = at_most::<64, _>)]
        payload: Vec<u8>,
        /// Zeros behind it.
        padding: u16,
        fate: Fate,
    },
    /// A key update that does what it says.
    Update {
        request: u8,
        fate: Fate,
    },
    /// The key is changed, and nobody is told.
    ChangeKey,
    /// A key update, and no change.
    OnlySay,
    Answer,
    /// Of nobody's sealing.
    Bytes(#[arbitrary(with = at_most::<128, _>)] Vec<u8>),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Kind {
    Data,
    Alert,
    Handshake,
    ChangeCipherSpec,
    Any(u8),
}

#[derive(Debug, Arbitrary)]
enum Fate {
    Arrives,
    /// Split there first: the beginning alone is not a record.
    InPieces(u16),
    Flipped(u16, u8),
    Cut(u16),
    Lost,
    Twice,
}

thread_local!(static LINES: RefCell<[Line; 2]> = RefCell::new(lines()));

fn lines() -> [Line; 2] {
    let config = |seed: u8| {
        let keypair = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        Config::new(&keypair).expect("Ed25519")
    };
    Line::both(&config(1), &config(2))
}

/// # Panics
///
/// If something is heard that was not said, or not heard that was.
pub fn run(data: &[u8]) {
    let Ok(scenario) = Scenario::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    LINES.with_borrow_mut(|lines| {
        let line = &mut lines[usize::from(scenario.listener_speaks)];
        let mut model = Model {
            dialer_hears: scenario.listener_speaks,
            ..Model::default()
        };
        for act in &scenario.acts {
            if !play(line, &mut model, act) {
                break;
            }
        }
        line.settle();
        // Whatever it was, both ends can go on from here, or the next run would find nothing.
        let mut sealed = line.say(DATA, b"settled");
        assert_eq!(line.hear(&mut sealed), Ok(Heard::Data(sealed.len(), 5..12)));
        line.settle();
    });
}

/// Where both ends are.
#[derive(Default)]
struct Model {
    dialer_hears: bool,
    /// Which key, and which record under it, comes next. What is said opens where both are the same.
    speaker: (u32, u32),
    hearer: (u32, u32),
    /// Of handshake messages, the part that has come.
    begun: Vec<u8>,
    /// Since the last data that was not empty.
    updates: u8,
    /// The speaker wants the hearer's key changed.
    asked: bool,
}

enum Expected {
    Data(Vec<u8>),
    End,
    Control,
    Error,
}

/// Whether the connection lives on.
fn play(line: &mut Line, model: &mut Model, act: &Act) -> bool {
    match act {
        Act::Say {
            kind,
            payload,
            padding,
            fate,
        } => {
            let kind = match kind {
                Kind::Data => DATA,
                Kind::Alert => ALERT,
                Kind::Handshake => HANDSHAKE,
                Kind::ChangeCipherSpec => CHANGE_CIPHER_SPEC,
                Kind::Any(kind) => *kind,
            };
            let mut payload = payload.clone();
            payload.resize(payload.len() + usize::from(*padding), 0);
            payload.truncate(1 << 14);
            deliver(line, model, kind, &payload, fate)
        }
        Act::Update { request, fate } => {
            let lives = deliver(line, model, HANDSHAKE, &[24, 0, 0, 1, request % 2], fate);
            change_key(line, model);
            lives
        }
        Act::ChangeKey => {
            change_key(line, model);
            true
        }
        Act::OnlySay => deliver(line, model, HANDSHAKE, &[24, 0, 0, 1, 0], &Fate::Arrives),
        Act::Answer => {
            let expected = 1 + usize::from(std::mem::take(&mut model.asked));
            assert_eq!(line.answer(b"answer"), Ok(expected));
            true
        }
        Act::Bytes(bytes) => {
            let mut bytes = bytes.clone();
            match line.hear(&mut bytes) {
                Ok(Heard::Part) => {
                    let Some(header) = bytes.first_chunk::<HEADER>() else {
                        return true;
                    };
                    let size = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
                    assert!(
                        header[0] == DATA && size > bytes.len() && size <= MAX,
                        "nothing to wait for"
                    );
                    true
                }
                Ok(heard) => panic!("{heard:?}, and nobody had said anything"),
                Err(_) => false,
            }
        }
    }
}

fn change_key(line: &mut Line, model: &mut Model) {
    line.change_key();
    model.speaker = (model.speaker.0 + 1, 0);
}

fn deliver(line: &mut Line, model: &mut Model, kind: u8, payload: &[u8], fate: &Fate) -> bool {
    let sealed = line.say(kind, payload);
    let said = model.speaker;
    model.speaker.1 += 1;
    let mut arrived = sealed.clone();
    match fate {
        Fate::Arrives | Fate::Twice => {}
        Fate::InPieces(at) => {
            let mut beginning = sealed[..usize::from(*at) % sealed.len()].to_vec();
            assert_eq!(line.hear(&mut beginning), Ok(Heard::Part));
        }
        Fate::Flipped(at, change) => arrived[usize::from(*at) % sealed.len()] ^= change,
        Fate::Cut(at) => arrived.truncate(usize::from(*at) % sealed.len()),
        Fate::Lost => arrived.clear(),
    }
    if arrived.len() < sealed.len() {
        assert_eq!(line.hear(&mut arrived), Ok(Heard::Part));
        return true;
    }
    // Of the header only the minor version is nobody's business.
    let same = arrived[..2] == sealed[..2] && arrived[3..] == sealed[3..];
    let longer = arrived[..2] == sealed[..2] && arrived[3..5] > sealed[3..5] && arrived[5..] == sealed[5..];
    let heard = line.hear(&mut arrived);
    if longer && heard == Ok(Heard::Part) {
        return true;
    }
    let opens = same && said == model.hearer;
    let expected = if opens {
        model.hear(kind, payload)
    } else {
        Expected::Error
    };
    let lives = match (&expected, &heard) {
        (Expected::Data(data), Ok(Heard::Data(size, range))) => {
            *size == sealed.len() && arrived[range.clone()] == data[..]
        }
        (Expected::End, Ok(Heard::End(size))) | (Expected::Control, Ok(Heard::Control(size))) => *size == sealed.len(),
        (Expected::Error, Err(_)) => return false,
        _ => false,
    };
    assert!(lives, "{heard:?} of {} bytes of kind {kind}", payload.len());
    if matches!(fate, Fate::Twice) {
        assert!(line.hear(&mut sealed.clone()).is_err(), "heard a second time");
        return false;
    }
    true
}

impl Model {
    /// What comes of a record that opens.
    fn hear(&mut self, kind: u8, payload: &[u8]) -> Expected {
        self.hearer.1 += 1;
        // What counts as kind is the last byte that is not zero (RFC 8446, 5.4).
        let mut inner = [payload, &[kind]].concat();
        let Some(last) = inner.iter().rposition(|byte| *byte != 0) else {
            return Expected::Error;
        };
        inner.truncate(last + 1);
        match inner.pop().expect("has a last byte") {
            DATA if self.begun.is_empty() => {
                if !inner.is_empty() {
                    self.updates = 0;
                }
                Expected::Data(inner)
            }
            ALERT if self.begun.is_empty() => match inner[..] {
                [_, 0] => Expected::End,
                [_, 90] => Expected::Control,
                _ => Expected::Error,
            },
            HANDSHAKE if !inner.is_empty() => {
                self.begun.extend(inner);
                if self.messages() {
                    Expected::Control
                } else {
                    Expected::Error
                }
            }
            _ => Expected::Error,
        }
    }

    /// Whether every message that is complete may be.
    fn messages(&mut self) -> bool {
        while let Some((&[kind, a, b, c], rest)) = self.begun.split_first_chunk() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > 1 << 14 {
                return false;
            }
            if rest.len() < length {
                return true;
            }
            match kind {
                24 => {
                    self.updates += 1;
                    let right = length == 1 && rest.len() == 1 && rest[0] < 2 && self.updates <= 32;
                    if !right {
                        return false;
                    }
                    self.asked |= rest[0] == 1;
                    self.hearer = (self.hearer.0 + 1, 0);
                }
                4 if self.dialer_hears => {}
                _ => return false,
            }
            self.begun.drain(..4 + length);
        }
        true
    }
}

fn at_most<'a, const N: usize, T: Arbitrary<'a>>(u: &mut Unstructured<'a>) -> Result<Vec<T>> {
    u.arbitrary_iter()?.take(N).collect()
}
