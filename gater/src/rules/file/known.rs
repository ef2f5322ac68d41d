//! Whether a file still says what was last read from it or written to it.

use super::super::snapshot::Snapshot;
use super::{FileError, rules_in, write};
use lru::LruCache;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Files of which rules know what they said, those used last. Each keeps what has changed since in
/// memory.
const FILES: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");
/// Lines that an error names of each sort, at most.
const NAMED: usize = 8;

/// Files that these rules were read from or written to, and what they said then.
pub(in super::super) struct Files(LruCache<PathBuf, Known>);

struct Known {
    print: Print,
    rules: Snapshot,
}

/// What tells one content from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Print {
    hash: u64,
    bytes: u64,
}

impl Default for Files {
    fn default() -> Self {
        Self(LruCache::new(FILES))
    }
}

impl Files {
    /// The file is known to say this.
    pub(super) fn remember(&mut self, target: PathBuf, print: Print, rules: &Snapshot) {
        let rules = rules.clone();
        self.0.put(target, Known { print, rules });
    }

    /// Puts `next` into the file at `path`. Where these rules say `before`, only if nothing in it
    /// is lost by that.
    pub(in super::super) fn replace(
        &mut self,
        path: &Path,
        before: Option<&Snapshot>,
        next: &Snapshot,
        now: u64,
    ) -> Result<(), FileError> {
        let target = write::target(path);
        let check = || match before {
            Some(before) => self.check(path, &target, before, now),
            None => Ok(()),
        };
        let print = write::replace(path, &target, next, now, check)?;
        self.remember(target, print, next);
        Ok(())
    }

    fn check(&self, path: &Path, target: &Path, before: &Snapshot, now: u64) -> Result<(), FileError> {
        let io = |source| FileError::Io {
            path: path.to_owned(),
            what: "read it",
            source,
        };
        let mut there = match File::open(target) {
            Ok(file) => Hashing::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io(error)),
        };
        io::copy(&mut there, &mut io::sink()).map_err(io)?;
        let (print, known) = (there.print(), self.0.peek(target));
        // In an empty file is nothing to lose.
        if print.bytes == 0 || known.is_some_and(|known| known.print == print) {
            return Ok(());
        }
        let found = rules_in(path, now)?;
        let edits = match known {
            Some(known) => Edits::between(&known.rules, &found),
            // Of what it said before nothing is known: what these rules say too is not lost.
            None => Edits {
                removed: Vec::new(),
                ..Edits::between(before, &found)
            },
        };
        if edits.is_empty() {
            return Ok(());
        }
        let path = path.to_owned();
        Err(FileError::Edited { path, edits })
    }
}

/// By what a file of rules differs from what was known of it, as its lines. Comments and the order
/// of lines are no difference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Edits {
    /// What it says and did not say: the first eight.
    pub added: Vec<String>,
    /// What it said and does not say: the first eight.
    pub removed: Vec<String>,
    /// How many there are besides, of both.
    pub more: usize,
}

impl Edits {
    fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let (old, new) = (text(old), text(new));
        let lines = |text: &'_ str| -> BTreeSet<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        let (old, new) = (lines(&old), lines(&new));
        let mut edits = Self::default();
        for (from, without, named) in [(&new, &old, &mut edits.added), (&old, &new, &mut edits.removed)] {
            for line in from.difference(without) {
                match named.len() < NAMED {
                    true => named.push(line.clone()),
                    false => edits.more += 1,
                }
            }
        }
        edits
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// Whatever the time is: what has expired is a line as any other.
fn text(rules: &Snapshot) -> String {
    let mut text = Vec::new();
    let written = write::lines(&mut text, rules, 0);
    written.map_or_else(|_| String::new(), |()| String::from_utf8_lossy(&text).into_owned())
}

impl fmt::Display for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (what, lines) in [("added", &self.added), ("removed", &self.removed)] {
            for line in lines {
                write!(f, "{between}{what} `{line}`")?;
                between = ", ";
            }
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
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
