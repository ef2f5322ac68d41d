//! Texts that others wrote, in messages.

use std::fmt::{self, Write as _};
use std::path::Path;

/// Whether a terminal or an editor obeys `c` instead of showing it: control characters, line and
/// paragraph separators, and what sets the direction of a text.
pub(crate) fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

fn escaped(f: &mut fmt::Formatter<'_>, chars: impl Iterator<Item = char>) -> fmt::Result {
    for c in chars {
        match is_obeyed(c) {
            true => write!(f, "{}", c.escape_default())?,
            false => f.write_char(c)?,
        }
    }
    Ok(())
}

/// A text, whole; what a terminal obeys is escaped.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: AsRef<str>> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(f, self.0.as_ref().chars())
    }
}

/// The same of a path.
pub(crate) fn shown(path: &Path) -> Shown<std::borrow::Cow<'_, str>> {
    Shown(path.to_string_lossy())
}

/// A word of a file: at most 80 characters, what a terminal obeys escaped.
pub(crate) struct Found<'f>(pub(crate) &'f str);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 80;
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str("`")?;
        let mut chars = self.0.chars();
        escaped(f, chars.by_ref().take(MOST))?;
        f.write_str(if chars.next().is_some() { "…`" } else { "`" })
    }
}

/// `; did you mean …?`
pub(crate) struct Meant<'m>(pub(crate) &'m Option<String>);

impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(meant) => write!(f, "; did you mean `{}`?", Shown(meant)),
            None => Ok(()),
        }
    }
}
