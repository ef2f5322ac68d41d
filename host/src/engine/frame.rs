//! Frames: a header of 37 bytes, or of 69 with a request's id in it, and a payload. Integers are big-endian.
//!
//! | offset | length | field |
//! | --- | --- | --- |
//! | 0 | 1 | type: 1 open, 2 close, 3 message, 4 request, 5 response |
//! | 1 | 32 | stream id |
//! | 33 | 4 | payload length |
//! | 37 | 32 | request id, types 4 and 5 only |

use super::id::StreamId;
use crate::limits::{MAX_MESSAGE_LENGTH, MAX_STREAM_NAME_LENGTH};
use std::fmt;

/// Of frames without a request id.
pub(crate) const HEADER: usize = 37;

const LONG_HEADER: usize = HEADER + 32;

/// What a response refers to: 32 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestId(pub(crate) [u8; 32]);

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// The type of a frame, with what only that type carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The payload is the name.
    Open,
    /// No payload.
    Close,
    Message,
    Request(RequestId),
    Response(RequestId),
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Close => 2,
            Self::Message => 3,
            Self::Request(_) => 4,
            Self::Response(_) => 5,
        }
    }

    fn request(self) -> Option<RequestId> {
        match self {
            Self::Request(id) | Self::Response(id) => Some(id),
            Self::Open | Self::Close | Self::Message => None,
        }
    }
}

/// What stands in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) stream: StreamId,
    pub(crate) length: usize,
}

impl Header {
    /// Bytes on the wire, the payload not included.
    pub(crate) fn size(&self) -> usize {
        self.kind.request().map_or(HEADER, |_| LONG_HEADER)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.length).expect("no payload is over 1 GiB");
        out.push(self.kind.code());
        out.extend_from_slice(&self.stream.0);
        out.extend_from_slice(&length.to_be_bytes());
        if let Some(id) = self.kind.request() {
            out.extend_from_slice(&id.0);
        }
    }
}

/// A peer that does not keep to the protocol. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// A frame of a type that there is not.
    #[error("frame type {0}")]
    FrameType(u8),
    /// The opening of a stream without a name, or with too long a one.
    #[error("a stream name of {0} bytes")]
    NameLength(usize),
    /// The close of a stream with a payload.
    #[error("a close with {0} bytes of payload")]
    CloseWithPayload(usize),
    /// A message over the ceiling.
    #[error("a message of {0} bytes")]
    MessageLength(usize),
    /// More streams opened and closed than anybody with 2000 streams has reason to.
    #[error("too many streams opened and closed")]
    OpensAndCloses,
    /// More bytes on the wire than twice what came of them.
    #[error("{raw} bytes on the wire for {consumed} of content")]
    Overhead {
        /// On the wire.
        raw: u64,
        /// Of frames.
        consumed: u64,
    },
}

/// What comes next of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Header(Header),
    /// Some of the payload, never empty.
    Payload(&'a [u8]),
    /// The frame is complete.
    End,
}

/// Takes frames apart, in whatever pieces their bytes come. Holds a header at most, never a payload.
#[derive(Debug)]
pub(crate) struct Decoder {
    head: [u8; LONG_HEADER],
    have: usize,
    /// Of the payload; none while the header is not complete.
    left: Option<usize>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            head: [0; LONG_HEADER],
            have: 0,
            left: None,
        }
    }
}

impl Decoder {
    /// The next piece of what `input` begins with, which moves on behind it; none when more input is needed.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Violation> {
        let Some(left) = self.left else {
            return Ok(self.header(input)?.map(Piece::Header));
        };
        if left == 0 {
            *self = Self::default();
            return Ok(Some(Piece::End));
        }
        if input.is_empty() {
            return Ok(None);
        }
        let (payload, rest) = input.split_at(left.min(input.len()));
        self.left = Some(left - payload.len());
        *input = rest;
        Ok(Some(Piece::Payload(payload)))
    }

    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Violation> {
        if !self.fill(HEADER, input) {
            // A type that there is not is told at once: nobody waits for the rest.
            if self.have > 0 && !(1..=5).contains(&self.head[0]) {
                return Err(Violation::FrameType(self.head[0]));
            }
            return Ok(None);
        }
        let length = u32::from_be_bytes(self.head[33..HEADER].try_into().expect("four bytes"));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let kind = match self.head[0] {
            1 if !(1..=MAX_STREAM_NAME_LENGTH).contains(&length) => return Err(Violation::NameLength(length)),
            1 => Kind::Open,
            2 if length > 0 => return Err(Violation::CloseWithPayload(length)),
            2 => Kind::Close,
            3..=5 if length > MAX_MESSAGE_LENGTH => return Err(Violation::MessageLength(length)),
            3 => Kind::Message,
            code @ (4 | 5) => {
                if !self.fill(LONG_HEADER, input) {
                    return Ok(None);
                }
                let id = RequestId(self.head[HEADER..].try_into().expect("32 bytes"));
                if code == 4 {
                    Kind::Request(id)
                } else {
                    Kind::Response(id)
                }
            }
            code => return Err(Violation::FrameType(code)),
        };
        self.left = Some(length);
        Ok(Some(Header {
            kind,
            stream: StreamId(self.head[1..33].try_into().expect("32 bytes")),
            length,
        }))
    }

    /// Whether `size` bytes of the header are there now.
    fn fill(&mut self, size: usize, input: &mut &[u8]) -> bool {
        let (more, rest) = input.split_at(size.saturating_sub(self.have).min(input.len()));
        self.head[self.have..self.have + more.len()].copy_from_slice(more);
        self.have += more.len();
        *input = rest;
        self.have >= size
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::tests::key;
    use super::*;
    use proptest::prelude::*;

    fn x() -> StreamId {
        StreamId::new(&key(1), &key(2), b"x")
    }

    fn request() -> RequestId {
        RequestId(std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    const GOLDEN: [(&str, Kind, &str, &str); 5] = [
        ("01", Kind::Open, "00000001", "78"),
        ("02", Kind::Close, "00000000", ""),
        ("03", Kind::Message, "00000002", "6869"),
        ("04", Kind::Request(RequestId([0; 32])), "00000002", "6869"),
        ("05", Kind::Response(RequestId([0; 32])), "00000002", "6f6b"),
    ];

    fn golden() -> Vec<(Header, Vec<u8>, Vec<u8>)> {
        let frames = GOLDEN.iter().map(|(code, kind, length, payload)| {
            let (kind, id) = match kind {
                Kind::Request(_) => (Kind::Request(request()), hex::encode(request().0)),
                Kind::Response(_) => (Kind::Response(request()), hex::encode(request().0)),
                kind => (*kind, String::new()),
            };
            let wire = format!("{code}{}{length}{id}{payload}", hex::encode(x().0));
            let payload = hex::decode(payload).unwrap();
            let (stream, length) = (x(), payload.len());
            (Header { kind, stream, length }, payload, hex::decode(wire).unwrap())
        });
        frames.collect()
    }

    #[test]
    fn frames_are_those_of_the_original_byte_for_byte() {
        for (header, payload, wire) in golden() {
            let mut written = Vec::new();
            header.encode(&mut written);
            assert_eq!(written.len(), header.size());
            written.extend_from_slice(&payload);
            assert_eq!(hex::encode(&written), hex::encode(&wire));
        }
    }

    /// Everything that comes out of `wire` when it comes in as `cuts` say.
    fn decode(wire: &[u8], cuts: &[usize]) -> Result<Vec<(Header, Vec<u8>)>, Violation> {
        let mut decoder = Decoder::default();
        let (mut frames, mut open) = (Vec::new(), None);
        let mut at = 0;
        let ends = cuts.iter().map(|cut| cut % (wire.len() + 1)).chain([wire.len()]);
        let mut ends: Vec<usize> = ends.collect();
        ends.sort_unstable();
        for end in ends {
            let mut input = &wire[at..end];
            while let Some(piece) = decoder.next(&mut input)? {
                match piece {
                    Piece::Header(header) => open = Some((header, Vec::new())),
                    Piece::Payload(bytes) => open.as_mut().unwrap().1.extend_from_slice(bytes),
                    Piece::End => frames.push(open.take().unwrap()),
                }
            }
            assert!(input.is_empty());
            at = end;
        }
        assert_eq!(open, None, "half a frame is left");
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_and_in_order_however_their_bytes_are_cut(
            picks in prop::collection::vec((0..5_usize, prop::collection::vec(any::<u8>(), 1..200)), 1..20),
            cuts in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let (mut wire, mut sent) = (Vec::new(), Vec::new());
            for (pick, payload) in picks {
                let (mut header, _, _) = golden().swap_remove(pick);
                let payload = if header.kind == Kind::Close { Vec::new() } else { payload };
                header.length = payload.len();
                header.encode(&mut wire);
                wire.extend_from_slice(&payload);
                sent.push((header, payload));
            }
            prop_assert_eq!(decode(&wire, &cuts).unwrap(), sent);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            let mut input = &bytes[..];
            while let Ok(Some(_)) = decoder.next(&mut input) {}
        }
    }

    fn header(code: u8, length: u32) -> Vec<u8> {
        let mut wire = vec![code];
        wire.extend_from_slice(&[7; 32]);
        wire.extend_from_slice(&length.to_be_bytes());
        wire.extend_from_slice(&[9; 32]);
        wire
    }

    #[test]
    fn what_the_protocol_forbids_is_refused_on_the_header_alone() {
        for (code, length, violation) in [
            (0, 0, Violation::FrameType(0)),
            (6, 0, Violation::FrameType(6)),
            (1, 0, Violation::NameLength(0)),
            (1, 257, Violation::NameLength(257)),
            (2, 1, Violation::CloseWithPayload(1)),
            (3, (1 << 30) + 1, Violation::MessageLength((1 << 30) + 1)),
            (4, u32::MAX, Violation::MessageLength(u32::MAX as usize)),
            (5, (1 << 30) + 1, Violation::MessageLength((1 << 30) + 1)),
        ] {
            let wire = header(code, length);
            assert_eq!(Decoder::default().next(&mut &wire[..]), Err(violation));
        }
        for (code, length) in [(1, 256), (3, 1 << 30), (4, 0), (5, 1 << 30)] {
            let wire = header(code, length);
            assert!(matches!(
                Decoder::default().next(&mut &wire[..]),
                Ok(Some(Piece::Header(_)))
            ));
        }
    }

    #[test]
    fn a_first_byte_that_begins_no_frame_is_enough() {
        assert_eq!(
            Decoder::default().next(&mut &[0x16][..]),
            Err(Violation::FrameType(0x16))
        );
    }
}
