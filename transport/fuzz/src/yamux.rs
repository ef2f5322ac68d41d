//! The muxer, between an authenticated peer that sends what it likes and a program that does what it likes.

use arbitrary::{Arbitrary, Result, Unstructured};
use libp2p_knock::internals::End;
use std::time::Duration;

/// The size of a header.
const HEADER: usize = 12;
/// What a stream may hold that nobody has read, when it has grown as far as it may.
const WINDOW: usize = 16 << 20;

#[derive(Debug, Arbitrary)]
struct Scenario {
    dialer: bool,
    #[arbitrary(with = at_most::<48, _>)]
    acts: Vec<Act>,
}

#[derive(Debug, Arbitrary)]
enum Act {
    /// A header, and as much of its body as is there.
    Frame {
        version: Rarely,
        kind: u8,
        flags: u8,
        stream: Number,
        length: Length,
        /// Bytes of the frame that do not come.
        missing: Rarely,
    },
    Bytes(#[arbitrary(with = at_most::<64, _>)] Vec<u8>),
    Open,
    Accept,
    Read(u8),
    Send(u8, u32),
    Finish(u8),
    Forget(u8),
    Talk,
    Wait(u16),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number {
    Small(u8),
    Any(u32),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Length {
    Short(u8),
    Medium(u16),
    Any(u32),
}

/// Zero, seven times out of eight.
#[derive(Debug, Clone, Copy)]
struct Rarely(u8);

impl Arbitrary<'_> for Rarely {
    fn arbitrary(bytes: &mut Unstructured<'_>) -> Result<Self> {
        let byte = u8::arbitrary(bytes)?;
        Ok(Self(if byte < 224 { 0 } else { byte - 224 }))
    }
}

fn at_most<'a, const MOST: usize, T: Arbitrary<'a>>(bytes: &mut Unstructured<'a>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    while all.len() < MOST && bytes.arbitrary()? {
        all.push(bytes.arbitrary()?);
    }
    Ok(all)
}

/// Plays one scenario.
pub fn run(data: &[u8]) {
    let Ok(scenario) = Scenario::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let mut end = End::new(scenario.dialer);
    let mut streams = Vec::new();
    let mut received = 0;
    for act in scenario.acts {
        match act {
            Act::Frame {
                version,
                kind,
                flags,
                stream,
                length,
                missing,
            } => {
                let stream = match stream {
                    Number::Small(n) => u32::from(n % 16),
                    Number::Any(n) => n,
                };
                let length = match length {
                    Length::Short(n) => u32::from(n),
                    Length::Medium(n) => u32::from(n),
                    Length::Any(n) => n,
                };
                let mut frame = vec![version.0, kind % 5, 0, flags % 16];
                frame.extend(stream.to_be_bytes());
                frame.extend(length.to_be_bytes());
                if frame[1] == 0 {
                    frame.resize(HEADER + (length as usize).min(1 << 17), 7);
                }
                frame.truncate(frame.len().saturating_sub(usize::from(missing.0)));
                received += frame.len();
                if end.hear(&frame).is_err() {
                    check(&end.talk(), true);
                    break;
                }
            }
            Act::Bytes(bytes) => {
                received += bytes.len();
                if end.hear(&bytes).is_err() {
                    check(&end.talk(), true);
                    break;
                }
            }
            Act::Open => streams.extend(end.open()),
            Act::Accept => streams.extend(end.accept()),
            Act::Read(n) => {
                if let Some(id) = pick(&streams, n)
                    && let Some(read) = end.read(id)
                {
                    assert!(read <= WINDOW && read <= received, "more than came");
                }
            }
            Act::Send(n, size) => {
                if let Some(id) = pick(&streams, n)
                    && let Some(sent) = end.send(id, size as usize)
                {
                    assert!(sent <= size as usize);
                }
            }
            Act::Finish(n) => pick(&streams, n).into_iter().for_each(|id| end.finish(id)),
            Act::Forget(n) => {
                if let Some(id) = pick(&streams, n) {
                    end.forget(id);
                    streams.retain(|held| *held != id);
                }
            }
            Act::Talk => {
                check(&end.talk(), false);
                assert!(end.listens(), "nothing is left unsaid");
            }
            Act::Wait(ms) => end.wait(Duration::from_millis(ms.into())),
        }
    }
}

fn pick(streams: &[u32], n: u8) -> Option<u32> {
    streams.get(usize::from(n) % streams.len().max(1)).copied()
}

/// Whole headers, of which none announces bytes that do not follow, and a farewell when there is reason.
fn check(said: &[u8], refused: bool) {
    assert_eq!(said.len() % HEADER, 0);
    for header in said.chunks(HEADER) {
        assert_eq!(header[0], 0);
        assert!(header[1] < 4);
        assert!(header[1] != 0 || header[8..] == [0; 4]);
    }
    if refused {
        assert_eq!(said[said.len() - HEADER + 1], 3, "the other end is told");
    }
}
