//! Whether a file still says what it said.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read, Write};

/// What tells one content from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    hash: u64,
    pub(super) bytes: u64,
}

/// A file, and what has been read from it or written to it.
pub(super) struct Hashing<T> {
    inner: T,
    hasher: DefaultHasher,
    bytes: u64,
}

impl<T> Hashing<T> {
    pub(super) fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: DefaultHasher::new(),
            bytes: 0,
        }
    }

    pub(super) const fn inner(&self) -> &T {
        &self.inner
    }

    pub(super) fn print(&self) -> Print {
        Print {
            hash: self.hasher.finish(),
            bytes: self.bytes,
        }
    }

    fn see(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(to)?;
        self.see(&to[..read]);
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(from)?;
        self.see(&from[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_print_does_not_depend_on_how_much_is_read_or_written_at_a_time() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut prints = Vec::new();
        for size in [1, 7, 8, 4096, content.len()] {
            let mut written = Hashing::new(Vec::new());
            for chunk in content.chunks(size) {
                written.write_all(chunk).expect("memory");
            }
            let mut read = Hashing::new(&content[..]);
            let mut buffer = vec![0; size];
            while read.read(&mut buffer).expect("memory") > 0 {}
            prints.extend([written.print(), read.print()]);
        }
        assert!(prints.windows(2).all(|two| two[0] == two[1]), "{prints:?}");
        let mut other = Hashing::new(Vec::new());
        other.write_all(&content[1..]).expect("memory");
        assert_ne!(other.print(), prints[0]);
    }
}
