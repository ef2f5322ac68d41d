//! What can be wrong with a file of rules, and with a file of a list.

use super::known::Edits;
use crate::rules::change::RuleError;
use crate::rules::lists::ListError;
use crate::rules::text::LineError;
use crate::shown::shown;
use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

/// A file of rules or of a list that cannot be read, or cannot be written. Its text names the file,
/// the line and the cause. What a terminal would obey is escaped in it: control characters, and what
/// sets the direction of a text.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileError {
    /// The system said no. What was there is still there.
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said no to: `open it`, `read it`, `write it`, …
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A line cannot be understood. The file is left as it is, and so are the rules.
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        error: LineError,
    },
    /// It says something else than what these rules last read from it or wrote to it: it has been
    /// edited, or another program has written it. The file is left as it is, and so are the rules.
    /// [`Rules::reload`] takes what it says, [`Rules::overwrite`] does not.
    ///
    /// [`Rules::reload`]: crate::Rules::reload
    /// [`Rules::overwrite`]: crate::Rules::overwrite
    Edited {
        /// Which file.
        path: PathBuf,
        /// What it says now that it did not say, and the other way round.
        edits: Edits,
    },
    /// Every line can be understood, and all together are too much. Or the closure of a change of
    /// the same rules has asked for it.
    Rules {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: RuleError,
    },
    /// It cannot be understood as a list of networks.
    List {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: ListError,
    },
    /// A file of rules imports a list that cannot be had.
    Import {
        /// Which file of rules.
        path: PathBuf,
        /// Which line of it, from 1.
        line: usize,
        /// What is wrong with the list's file.
        error: Box<Self>,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, what, source } => write!(f, "{}: cannot {what}: {source}", shown(path)),
            Self::Line { path, line, error } => write!(f, "{}, line {line}: {error}", shown(path)),
            Self::Edited { path, edits } => {
                let path = shown(path);
                write!(f, "{path}: was changed since it was last read or written: {edits}")
            }
            Self::Rules { path, error } => write!(f, "{}: {error}", shown(path)),
            Self::List { path, error } if error.line().is_some() => write!(f, "{}, {error}", shown(path)),
            Self::List { path, error } => write!(f, "{}: {error}", shown(path)),
            Self::Import { path, line, error } => write!(f, "{}, line {line}: {error}", shown(path)),
        }
    }
}

/// What it has to say is in its text: a chain of causes says nothing twice.
impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => source.source(),
            _ => None,
        }
    }
}

/// Why a change was not made that was to be kept in a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file was not replaced.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something that can be no rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
}
