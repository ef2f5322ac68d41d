//! Whether a file still says what was last read from it or written to it.

use super::super::print::{Hashing, Print};
use super::super::snapshot::Snapshot;
use super::statement::base;
use super::{FileError, rules_in, write};
use lru::LruCache;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io;
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
            Some(known) => Edits::between(&known.rules, &found, &base(path)),
            // Of what it said before nothing is known: what these rules say too is not lost.
            None => Edits {
                removed: Vec::new(),
                ..Edits::between(before, &found, &base(path))
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
    /// Of files in the directory `base`.
    fn between(old: &Snapshot, new: &Snapshot, base: &Path) -> Self {
        let (old, new) = (text(old, base), text(new, base));
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
fn text(rules: &Snapshot, base: &Path) -> String {
    let mut text = Vec::new();
    let written = write::lines(&mut text, rules, 0, base);
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
