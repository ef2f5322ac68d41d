//! The decoder of frames against a plain one that has all bytes at once.

use knock_host::internals::{Frame, decode, encode_header};

/// The first byte says how the rest is cut.
///
/// # Panics
///
/// If the decoder differs from the plain one, or from itself when the bytes come in other pieces.
pub fn run(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else {
        return;
    };
    let whole = decode([bytes]);
    assert_eq!(whole, plain(bytes));
    assert_eq!(
        whole,
        decode(bytes.chunks(usize::from(size).max(1))),
        "in pieces of {size}"
    );
    assert_eq!(whole, decode(bytes.chunks(1)), "byte by byte");
    let written: Vec<u8> = whole
        .0
        .iter()
        .flat_map(|frame| [encode_header(frame), frame.payload.clone()].concat())
        .collect();
    assert!(bytes.starts_with(&written), "what is written again is what was read");
}

/// As the table in ragep2p's description of frames reads.
fn plain(mut bytes: &[u8]) -> (Vec<Frame>, bool) {
    let mut frames = Vec::new();
    while let Some(&code) = bytes.first() {
        if !(1..=5).contains(&code) {
            return (frames, true);
        }
        if bytes.len() < 37 {
            break;
        }
        let length = u32::from_be_bytes(bytes[33..37].try_into().expect("four bytes")) as usize;
        let allowed = match code {
            1 => (1..=256).contains(&length),
            2 => length == 0,
            _ => length <= 1 << 30,
        };
        if !allowed {
            return (frames, true);
        }
        let header = if code >= 4 { 69 } else { 37 };
        if bytes.len() < header {
            break;
        }
        let stream = bytes[1..33].try_into().expect("32 bytes");
        let request = (code >= 4).then(|| bytes[37..69].try_into().expect("32 bytes"));
        let payload = &bytes[header..bytes.len().min(header + length)];
        frames.push(Frame {
            code,
            stream,
            request,
            length,
            payload: payload.to_vec(),
            complete: payload.len() == length,
        });
        bytes = &bytes[header + payload.len()..];
    }
    (frames, false)
}
