//! The lines of files of rules and of lists.

use std::io::{self, BufRead, Read as _};

/// The longest line, in bytes, without its end.
pub(super) const LONGEST_LINE: usize = 4096;

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With LF or CRLF, which is not in the line.
    Break,
    /// With what is read, or the line is too long.
    Open,
}

/// Appends one line to `line`, and at most two bytes more than [`LONGEST_LINE`] of it. `None` if
/// nothing is left.
pub(super) fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<End>> {
    if input.take(LONGEST_LINE as u64 + 2).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    let end = match line.pop_if(|byte| *byte == b'\n') {
        Some(_) => End::Break,
        None => End::Open,
    };
    line.pop_if(|byte| *byte == b'\r');
    Ok(Some(end))
}
