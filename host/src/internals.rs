//! For this workspace's fuzzers. Unstable.

use crate::engine::frame::{Decoder, Header, Kind, Piece};

/// One frame, or the beginning of one that did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// 1 open, 2 close, 3 message, 4 request, 5 response.
    pub code: u8,
    /// The stream's id.
    pub stream: [u8; 32],
    /// The request's id, types 4 and 5 only.
    pub request: Option<[u8; 32]>,
    /// As the header says.
    pub length: usize,
    /// What came of it.
    pub payload: Vec<u8>,
    /// Whether all of it came.
    pub complete: bool,
}

/// What the decoder of frames makes of bytes that come in these pieces, and whether it then closed the connection.
///
/// # Panics
///
/// If it takes no input and gives nothing for ever, or gives more than there was.
pub fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, bool) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::<Frame>::new();
    for mut piece in pieces {
        loop {
            let before = piece.len();
            match decoder.next(&mut piece) {
                Err(_) => return (frames, true),
                Ok(None) => break,
                Ok(Some(Piece::Header(header))) => frames.push(frame(header)),
                Ok(Some(Piece::Payload(bytes))) => {
                    assert!(!bytes.is_empty() && before - piece.len() == bytes.len());
                    let frame = frames.last_mut().expect("a header comes first");
                    frame.payload.extend_from_slice(bytes);
                }
                Ok(Some(Piece::End)) => frames.last_mut().expect("a header comes first").complete = true,
            }
        }
        assert!(piece.is_empty(), "it stops before the end of what there is");
    }
    (frames, false)
}

/// The header of `frame` as it is sent.
pub fn encode_header(frame: &Frame) -> Vec<u8> {
    use crate::engine::frame::RequestId;
    use crate::engine::id::StreamId;
    let request = || RequestId(frame.request.unwrap_or_default());
    let kind = match frame.code {
        1 => Kind::Open,
        2 => Kind::Close,
        4 => Kind::Request(request()),
        5 => Kind::Response(request()),
        _ => Kind::Message,
    };
    let header = Header {
        kind,
        stream: StreamId(frame.stream),
        length: frame.length,
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes
}

fn frame(header: Header) -> Frame {
    let (code, request) = match header.kind {
        Kind::Open => (1, None),
        Kind::Close => (2, None),
        Kind::Message => (3, None),
        Kind::Request(id) => (4, Some(id.0)),
        Kind::Response(id) => (5, Some(id.0)),
    };
    Frame {
        code,
        stream: header.stream.0,
        request,
        length: header.length,
        payload: Vec::new(),
        complete: false,
    }
}
