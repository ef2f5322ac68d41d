//! Files of rules and of lists, line by line.

use super::error::FileError;
use super::statement::{Import, Then, Whole, base};
use super::{HEADER, UNTIL_END};
use crate::rules::change::Change;
use crate::rules::line::{End, LONGEST_LINE, next_line};
use crate::rules::lists::{NetworkList, Source};
use crate::rules::print::{Hashing, Print};
use crate::rules::text::{LineError, Words};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

/// Before UTF-8, as some editors write it. In the middle where files were put together.
const BOM: char = '\u{feff}';

/// What to do with a list that is in a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// Say which file it is.
    Name,
    Read,
}

/// How far a file has been read.
#[derive(Default)]
struct Progress {
    /// Which line it is, from 1.
    line: usize,
    header: Option<Header>,
    ended: bool,
    /// Whether a line break stands behind the last line.
    broken: bool,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    /// Whether a line `end` must follow.
    until_end: bool,
}

pub(super) fn read(path: &Path, change: &mut Change, lists: Lists) -> Result<Print, FileError> {
    let io = |what| {
        move |source| FileError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    let mut hashing = Hashing::new(File::open(path).map_err(io("open it"))?);
    let mut file = BufReader::with_capacity(1 << 16, &mut hashing);
    let mut whole = Whole::new(base(path));
    let mut progress = Progress::default();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let Some(end) = next_line(&mut file, &mut bytes).map_err(io("read it"))? else {
            break;
        };
        progress.broken = end == End::Break;
        let read = progress.read(&bytes, &mut whole, change);
        read.map_err(|error| at(path, progress.line, error))?;
    }
    let line = progress.line.max(1);
    progress.finish().map_err(|error| at(path, line, error))?;
    let imports = std::mem::take(&mut whole.imports);
    // What is left cannot fail for a reason that a line would explain better than the last.
    whole.apply(change).map_err(|error| at(path, line, error.into()))?;
    let print = hashing.print();
    for (line, import) in imports.into_iter().filter(|_| lists == Lists::Read) {
        let Import { name, standing, source } = import;
        let file = source.path.clone();
        let list = read_list(&file, source).map_err(|error| FileError::Import {
            path: path.to_owned(),
            line,
            error: Box::new(error),
        })?;
        let listed = change.list(&name, standing, list);
        listed.map_err(|error| at(path, line, error.into()))?;
    }
    Ok(print)
}

fn at(path: &Path, line: usize, error: LineError) -> FileError {
    FileError::Line {
        path: path.to_owned(),
        line,
        error,
    }
}

impl Progress {
    /// One line, without its end.
    fn read(&mut self, bytes: &[u8], whole: &mut Whole, change: &mut Change) -> Result<(), LineError> {
        self.line += 1;
        if bytes.len() > LONGEST_LINE {
            return Err(LineError::NotText);
        }
        if self.line == 1 && (bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff")) {
            return Err(LineError::Utf16);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| LineError::NotText)?;
        let text = text.trim_start_matches(BOM).trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        if self.header.is_none() {
            self.header = Some(header(text)?);
            return Ok(());
        }
        if self.ended {
            return Err(LineError::BehindEnd);
        }
        self.ended = whole.read(text, self.line, change)? == Then::End;
        Ok(())
    }

    /// The file has no more lines.
    fn finish(&self) -> Result<(), LineError> {
        match self.header {
            None => Err(LineError::Header { found: String::new() }),
            Some(header) if !self.ended && (header.until_end || !self.broken) => Err(LineError::NoEnd),
            Some(_) => Ok(()),
        }
    }
}

fn header(text: &str) -> Result<Header, LineError> {
    let mut words = Words::of(text);
    let words: Vec<&str> = std::iter::from_fn(|| words.next()).collect();
    let line = words.join(" ");
    let until_end = match line.strip_prefix(HEADER) {
        Some("") => Some(false),
        Some(rest) if rest.trim_start() == UNTIL_END => Some(true),
        _ => None,
    };
    if let Some(until_end) = until_end {
        return Ok(Header { until_end });
    }
    let version = match words[..] {
        ["libp2p-gater", "rules", version, ..] => version.parse().ok(),
        _ => None,
    };
    match version {
        Some(found) if found > 1 => Err(LineError::Newer { found }),
        _ => Err(LineError::Header { found: line }),
    }
}

/// The list in the file at `path`, which is that of `source`.
pub(in super::super) fn read_list(path: &Path, source: Source) -> Result<NetworkList, FileError> {
    use crate::rules::lists::ListError;
    let io = |what| {
        move |source: io::Error| FileError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    let file = File::open(path).map_err(io("open it"))?;
    NetworkList::from_source(file, source).map_err(|error| match error {
        ListError::Io(error) => io("read it")(error),
        error => FileError::List {
            path: path.to_owned(),
            error,
        },
    })
}
