//! What can be wrong with a list of networks.

use super::ListFormat;
use super::read::{LONGEST_DOCUMENT, MOST_NETWORKS};
use crate::rules::line::LONGEST_LINE;
use crate::shown::{Found, Meant};
use std::io;

/// Something that is read as a list of networks and is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Io(io::Error),
    /// A line is no entry of such a list.
    #[error("line {line}: found {}, expected {expected}{}", Found(.found), Meant(.meant))]
    Entry {
        /// Which line, from 1.
        line: usize,
        /// What was found.
        found: String,
        /// What an entry is.
        expected: String,
        /// What was probably meant.
        meant: Option<String>,
    },
    /// A line is longer than any entry.
    #[error("line {line}: expected at most {LONGEST_LINE} bytes a line")]
    TooLong {
        /// Which line, from 1.
        line: usize,
    },
    /// It is no JSON, or not of the form that it should have.
    #[error("line {line}, column {column}: {problem}")]
    Json {
        /// Which line, from 1.
        line: usize,
        /// Which byte of it, from 1.
        column: usize,
        /// What is wrong.
        problem: String,
    },
    /// It is something else altogether.
    #[error("found {found}, expected {expected}")]
    NoList {
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// No network is in it: it was not filled yet, or a download has failed.
    #[error("no network in it, as `{}`: expected at least one", .format.name())]
    Empty {
        /// As what it was read.
        format: ListFormat,
    },
    /// Its metadata gives the number of its entries, and there are more or fewer.
    #[error("its metadata says that it has {said} entries, found {found}: was it cut short?")]
    Count {
        /// What it says; of lists put together, the sum.
        said: u64,
        /// How many there are.
        found: u64,
    },
    /// More networks than a list may have.
    #[error("line {line}: expected at most {MOST_NETWORKS} networks")]
    TooMany {
        /// In which line that is so, from 1.
        line: usize,
    },
    /// A JSON document is larger than such a document may be.
    #[error("expected at most {LONGEST_DOCUMENT} bytes of JSON")]
    TooLarge,
}

impl ListError {
    /// In which line, from 1; `None` for what is wrong with the whole.
    pub const fn line(&self) -> Option<usize> {
        match self {
            Self::Entry { line, .. } | Self::TooLong { line } | Self::Json { line, .. } | Self::TooMany { line } => {
                Some(*line)
            }
            _ => None,
        }
    }
}
