//! What a stream has received and nobody has read yet.

use std::cell::RefCell;
use std::collections::VecDeque;

/// The most that is read at once: what one TLS record carries.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Chunks that a thread keeps for the next stream: half a megabyte, of which an idle connection holds nothing.
const SPARES: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// [`CHUNK`] bytes of anything, to be read into.
pub(crate) fn chunk() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; CHUNK])
}

/// Keeps a chunk for the next stream.
pub(crate) fn give_back(chunk: Vec<u8>) {
    if chunk.len() == CHUNK {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARES {
                spare.push(chunk);
            }
        });
    }
}

/// Bytes in order of arrival. Takes at most twice the memory of what it holds, and no more than one allocation for
/// each [`CHUNK`] of bytes, however small the pieces were that they came in.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    queue: VecDeque<Piece>,
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Chunks {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Appends the first `n` bytes of `chunk`, which has to be [`CHUNK`] long. A chunk that is not worth keeping comes
    /// back.
    pub(crate) fn push(&mut self, chunk: Vec<u8>, n: usize) -> Option<Vec<u8>> {
        debug_assert_eq!(chunk.len(), CHUNK);
        if n == 0 {
            return Some(chunk);
        }
        if n >= CHUNK / 2 {
            self.queue.push_back(Piece {
                bytes: chunk,
                start: 0,
                end: n,
            });
            return None;
        }
        match self.queue.back_mut() {
            // One of those that grow: its bytes end where they are used.
            Some(last) if last.end == last.bytes.len() && last.end + n < CHUNK => {
                last.bytes.extend_from_slice(&chunk[..n]);
                last.end += n;
            }
            _ => self.queue.push_back(Piece {
                bytes: chunk[..n].to_vec(),
                start: 0,
                end: n,
            }),
        }
        Some(chunk)
    }

    /// Moves as much as there is, and as fits, to `buf`.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut n = 0;
        while n < buf.len()
            && let Some(piece) = self.queue.front_mut()
        {
            let k = (piece.end - piece.start).min(buf.len() - n);
            buf[n..n + k].copy_from_slice(&piece.bytes[piece.start..piece.start + k]);
            n += k;
            piece.start += k;
            if piece.start == piece.end
                && let Some(piece) = self.queue.pop_front()
            {
                give_back(piece.bytes);
            }
        }
        if self.queue.is_empty() {
            // An idle stream holds no memory for it.
            self.queue = VecDeque::new();
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(from: u32, n: usize) -> Vec<u8> {
        let mut chunk = chunk();
        for (at, byte) in chunk[..n].iter_mut().enumerate() {
            *byte = u8::try_from((from as usize + at) % 251).expect("small");
        }
        chunk
    }

    #[test]
    fn pieces_of_any_size_come_out_as_one_sequence() {
        let mut chunks = Chunks::default();
        let mut sent = 0_u32;
        for n in [1, 3, 5000, CHUNK, 7, CHUNK / 2, CHUNK - 1, 0, 2] {
            if let Some(back) = chunks.push(filled(sent, n), n) {
                give_back(back);
            }
            sent += u32::try_from(n).expect("small");
        }
        let mut got = Vec::new();
        for size in [1, 10, 5001, 100_000] {
            let mut buf = vec![0; size];
            let n = chunks.read(&mut buf);
            got.extend_from_slice(&buf[..n]);
        }
        assert!(chunks.is_empty());
        assert_eq!(got.len(), sent as usize);
        let expected = filled_sequence(got.len());
        assert!(got == expected, "the bytes are as they came");
    }

    fn filled_sequence(n: usize) -> Vec<u8> {
        (0..n).map(|at| u8::try_from(at % 251).expect("small")).collect()
    }

    #[test]
    fn many_small_pieces_share_memory() {
        let mut chunks = Chunks::default();
        for _ in 0..10 * CHUNK {
            give_back(chunks.push(chunk(), 1).expect("too small to keep"));
        }
        let held: usize = chunks.queue.iter().map(|piece| piece.bytes.capacity()).sum();
        assert!(held <= 20 * CHUNK, "{held} bytes for {}", 10 * CHUNK);
        assert!(chunks.queue.len() <= 11);
    }
}
