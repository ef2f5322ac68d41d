//! What goes to the terminal, and what must not.

use indicatif::{ProgressBar, ProgressStyle};
use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

/// One line on stdout. Unlike `println!` it does not panic when nobody reads it any more (`node demo | head`).
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// One line on stderr, for a person who waits. Lost where stderr cannot be written.
pub(crate) fn aside(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether `stream`, stdout or stderr, is a terminal that can be drawn on: its TERM is neither unset
/// nor `dumb`.
pub(crate) fn draws(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && (cfg!(windows) || set("TERM").is_some_and(|term| term != "dumb"))
}

/// Whether it may be coloured as well: NO_COLOR is not set (<https://no-color.org>).
pub(crate) fn coloured(stream: &impl IsTerminal) -> bool {
    draws(stream) && set("NO_COLOR").is_none()
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Text from somebody else, without what could move the cursor, colour the screen or turn the direction of writing.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| {
        !c.is_control() && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect()
}

/// A progress bar on stderr, with rate and time left; none where stderr is no terminal, or a dumb
/// one.
pub(crate) fn bar(what: &str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes).with_message(what.to_owned());
    // The template is ours and right; if it were not, a plain bar would do.
    if let Ok(style) =
        ProgressStyle::with_template("{msg} [{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// A duration with as many digits as one wants to read.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

/// A word as a shell reads it back. A word with a zero byte, which no shell can hold, stays as it is.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    shlex::try_quote(word).unwrap_or(Cow::Borrowed(word))
}

/// A number of bytes, rounded.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, "bytes");
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if value.fract() == 0.0 {
        format!("{value} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\rc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(printable("größe → 日本"), "größe → 日本");
    }

    #[test]
    fn words_are_pasted_as_they_are() {
        for (word, text) in [
            ("node.key", "node.key"),
            ("my key.key", "'my key.key'"),
            ("it's", "\"it's\""),
            ("$HOME;rm", "'$HOME;rm'"),
            ("/ip4/127.0.0.1/tcp/1/tls", "/ip4/127.0.0.1/tcp/1/tls"),
        ] {
            assert_eq!(quoted(word), text);
        }
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1 << 20, "1 MiB"),
            (1536, "1.5 KiB"),
            (1 << 30, "1 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
