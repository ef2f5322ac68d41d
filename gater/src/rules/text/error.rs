//! What can be wrong with a line of a file of rules.

use super::super::change::RuleError;
use super::super::cidr::CidrError;
use crate::shown::{Found, Meant};

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The first line that is neither empty nor a comment is not what a file of rules begins with.
    #[error("expected the line `libp2p-gater rules 1`, with which a file of rules begins; found {}", Found(.found))]
    Header {
        /// That line; empty if there is none.
        found: String,
    },
    /// A version that this one does not know.
    #[error("version {found} of the format is newer than this program, which knows version 1")]
    Newer {
        /// Which version.
        found: u64,
    },
    /// The file was cut short. Its header says `until end` and no line is `end`; or there is neither
    /// an `end` nor a line break behind the last line.
    #[error("the file was cut short: expected a last line `end`")]
    NoEnd,
    /// Something stands behind the last line.
    #[error("something stands behind `end`: expected comments and empty lines alone")]
    BehindEnd,
    /// Not UTF-8, or more than 4,096 bytes.
    #[error("not a line of text: expected UTF-8, at most 4096 bytes")]
    NotText,
    /// The file is UTF-16, as some editors and shells write it.
    #[error("the file is UTF-16: expected UTF-8")]
    Utf16,
    /// The line begins with a word that means nothing here.
    #[error("unknown statement {}{}", Found(.word), Meant(.meant))]
    Statement {
        /// The word.
        word: String,
        /// The line that was probably meant.
        meant: Option<String>,
    },
    /// A word further on means nothing here.
    #[error("unknown field {}{}", Found(.word), Meant(.meant))]
    Field {
        /// The word.
        word: String,
        /// The line that was probably meant.
        meant: Option<String>,
    },
    /// A word needs another one behind it.
    #[error("expected a value behind `{0}`")]
    Missing(&'static str),
    /// It has been said before.
    #[error("`{0}` is said twice: expected it once")]
    Twice(&'static str),
    /// The rule names nothing.
    #[error("the rule has no subject: use `everything` to match all connections")]
    Nothing,
    /// A value is not what its field wants.
    #[error("invalid value {}: expected {wanted}{}", Found(.value), Meant(.meant))]
    Value {
        /// What was found.
        value: String,
        /// What it should be.
        wanted: &'static str,
        /// The line that was probably meant.
        meant: Option<String>,
    },
    /// A range of addresses is none.
    #[error("invalid network {}: {error}{}", Found(.value), Meant(.meant))]
    Network {
        /// What was found.
        value: String,
        /// Why.
        error: CidrError,
        /// The line that was probably meant.
        meant: Option<String>,
    },
    /// It can be read, and can be no rule.
    #[error("{0}")]
    Rule(RuleError),
}

impl From<RuleError> for LineError {
    fn from(error: RuleError) -> Self {
        Self::Rule(error)
    }
}

impl LineError {
    pub(in super::super) fn field(word: &str) -> Self {
        Self::Field {
            word: word.to_owned(),
            meant: None,
        }
    }

    pub(in super::super) fn statement(word: &str) -> Self {
        Self::Statement {
            word: word.to_owned(),
            meant: None,
        }
    }

    pub(in super::super) fn value(value: &str, wanted: &'static str) -> Self {
        Self::Value {
            value: value.to_owned(),
            wanted,
            meant: None,
        }
    }

    pub(in super::super) fn network(value: &str, error: CidrError) -> Self {
        Self::Network {
            value: value.to_owned(),
            error,
            meant: None,
        }
    }

    /// The word at fault.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Statement { word, .. } | Self::Field { word, .. } => Some(word),
            Self::Value { value, .. } | Self::Network { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The same, and `line` was meant.
    pub(super) fn meaning(mut self, line: Option<String>) -> Self {
        if let Self::Statement { meant, .. }
        | Self::Field { meant, .. }
        | Self::Value { meant, .. }
        | Self::Network { meant, .. } = &mut self
        {
            *meant = line;
        }
        self
    }
}
