//! How far files have come, on lines above the one on which the user types.
//!
//! The bars of `indicatif` share their line with what is typed, and draw over it. These leave that
//! line alone: the cursor stands there, and comes back to it.

use crate::link::Way;
use crate::term;
use indicatif::{HumanBytes, HumanDuration, ProgressBar};
use libp2p::PeerId;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use terminal_size::terminal_size_of;

/// A file on its way: its number is its sender's.
pub(super) type File = (Way, PeerId, u64);

/// How often bars are drawn again at most, while nothing else happens.
const REDRAW: Duration = Duration::from_millis(250);
/// Columns of a window whose width is not known.
const WIDTH: usize = 80;

#[derive(Debug)]
struct Bar {
    file: File,
    verb: &'static str,
    name: String,
    /// Never drawn: it keeps the rate and the time left.
    progress: ProgressBar,
}

/// Nothing of it shows where stderr is no terminal, or a dumb one.
#[derive(Debug)]
pub(super) struct Bars {
    bars: Vec<Bar>,
    /// Lines of bars above the cursor's.
    drawn: usize,
    when: Instant,
    live: bool,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self {
            bars: Vec::new(),
            drawn: 0,
            when: Instant::now(),
            live: term::draws(&io::stderr()),
        }
    }

    /// Prints a line above the bars.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.erase();
        term::line(text)?;
        self.draw();
        Ok(())
    }

    /// Shows how far a file has come, in place of what was shown of it before.
    pub(super) fn put(&mut self, file: File, verb: &'static str, name: &str, bytes: u64) {
        self.bars.retain(|bar| bar.file != file);
        self.bars.push(Bar {
            file,
            verb,
            name: name.to_owned(),
            progress: ProgressBar::hidden(),
        });
        if let Some(bar) = self.bars.last() {
            bar.progress.set_length(bytes);
        }
        self.draw();
    }

    pub(super) fn remove(&mut self, file: &File) {
        self.bars.retain(|bar| bar.file != *file);
        self.draw();
    }

    pub(super) fn moved(&mut self, file: &File, done: u64) {
        if let Some(bar) = self.bars.iter().find(|bar| bar.file == *file) {
            bar.progress.set_position(done);
            if self.when.elapsed() >= REDRAW {
                self.draw();
            }
        }
    }

    /// Draws the bars again: a file that does not get on has a rate too.
    pub(super) fn tick(&mut self) {
        for bar in &self.bars {
            bar.progress.tick();
        }
        self.draw();
    }

    /// A line was typed below the bars, which go below it. Of several lines that are pasted at once,
    /// or of one that is wider than the window, some may stay hidden behind a bar that stays too.
    pub(super) fn entered(&mut self) {
        if self.drawn > 0 && io::stdin().is_terminal() {
            let (lines, up) = (self.drawn, self.drawn + 1);
            emit(&format!("\r\x1b[{up}A\x1b[{lines}M\x1b[B"));
            self.drawn = 0;
            self.draw();
        }
    }

    /// Takes the bars away. What is typed below them is lost from view, and not from the line.
    fn erase(&mut self) {
        if self.drawn > 0 {
            let lines = self.drawn;
            emit(&format!("\r\x1b[{lines}A\x1b[{lines}M\x1b[K"));
            self.drawn = 0;
        }
    }

    fn draw(&mut self) {
        if !self.live || (self.bars.is_empty() && self.drawn == 0) {
            return;
        }
        self.when = Instant::now();
        let width = terminal_size_of(io::stderr()).map_or(WIDTH, |(width, _)| width.0.into());
        let mut text = String::new();
        for Bar {
            verb, name, progress, ..
        } in &self.bars
        {
            let (done, of) = (progress.position(), progress.length().unwrap_or_default());
            let line = line(width, verb, name, (done, of), progress.per_sec(), progress.eta());
            let _ = write!(text, "\r{line}\x1b[K\n");
        }
        let lines = self.bars.len();
        if lines == self.drawn {
            // The cursor is saved, and what is typed stays as it is.
            emit(&format!("\x1b7\x1b[{lines}A{text}\x1b8"));
        } else {
            self.erase();
            emit(&text);
            self.drawn = lines;
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.erase();
    }
}

/// In one piece, and lost where stderr cannot be written.
fn emit(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// One bar in fewer than `width` columns. Below 40 its end is cut.
fn line(width: usize, verb: &str, name: &str, (done, of): (u64, u64), rate: f64, left: Duration) -> String {
    /// The longest that numbers get: ` 100%, 1023.99 KiB/s, 59m left`.
    const NUMBERS: usize = 31;
    /// The shortest name and bar, and the longest.
    const NAME: [usize; 2] = [8, 24];
    const BAR: [usize; 2] = [4, 32];
    let free = width.saturating_sub(NUMBERS + 1);
    let verb = if free < verb.len() + NAME[0] { "" } else { verb };
    let name = cut(name, (free - verb.len()).clamp(NAME[0], NAME[1]));
    let mut line = format!("{verb}{name}");
    let done = done.min(of);
    let room = free.saturating_sub(columns(&line) + " []".len()).min(BAR[1]);
    if room >= BAR[0] {
        let full = share(done, of, room);
        let head = if full < room { ">" } else { "" };
        let _ = write!(line, " [{:room$}]", format!("{}{head}", "=".repeat(full)));
    }
    let _ = write!(line, " {:>3}%, {}/s, ", share(done, of, 100), HumanBytes(rate as u64));
    let _ = match rate {
        // Without a rate the library says 0 s.
        rate if rate < 1.0 => write!(line, "? left"),
        _ => write!(line, "{:#} left", HumanDuration(left)),
    };
    fitting(width.saturating_sub(1), line.chars()).collect()
}

/// How much of `whole` has `done` of `of`; of nothing, all.
fn share(done: u64, of: u64, whole: usize) -> usize {
    let part = u128::from(done) * whole as u128;
    part.checked_div(of.into())
        .map_or(whole, |part| part.try_into().unwrap_or(whole))
}

/// Columns of a terminal that a text takes at most.
fn columns(text: &str) -> usize {
    text.chars().map(wide).sum()
}

fn wide(c: char) -> usize {
    if c.is_ascii() || c == '…' { 1 } else { 2 }
}

/// A name in `most` columns: its start and its end.
fn cut(name: &str, most: usize) -> String {
    if columns(name) <= most {
        return name.to_owned();
    }
    let start = fitting(most / 2, name.chars());
    let end: Vec<_> = fitting(most - most / 2 - 1, name.chars().rev()).collect();
    start.chain(['…']).chain(end.into_iter().rev()).collect()
}

/// As many of the characters as `room` columns hold.
fn fitting(room: usize, chars: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    let mut used = 0;
    chars.take_while(move |c| {
        used += wide(*c);
        used <= room
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_in_the_middle() {
        for (name, most, text) in [
            ("file.bin", 24, "file.bin"),
            ("a-rather-long-name-of-a-file.tar.gz", 24, "a-rather-lon…file.tar.gz"),
            ("abcdefghi", 9, "abcdefghi"),
            ("abcdefghi", 8, "abcd…ghi"),
            ("日本の写真集", 8, "日本…集"),
        ] {
            assert_eq!(cut(name, most), text);
            assert!(columns(text) <= most);
        }
    }

    #[test]
    fn a_bar_says_how_far_how_fast_and_how_long_in_the_columns_there_are() {
        const MIB: u64 = 1 << 20;
        let said = |width| {
            let (rate, left) = (2.5 * MIB as f64, Duration::from_secs(75));
            line(
                width,
                "reading ",
                "holiday pictures of the year.tar",
                (100 * MIB, 325 * MIB),
                rate,
                left,
            )
        };
        assert_eq!(
            said(120),
            "reading holiday pict…he year.tar [=========>                      ]  30%, 2.50 MiB/s, 75s left"
        );
        assert_eq!(
            said(80),
            "reading holiday pict…he year.tar [====>        ]  30%, 2.50 MiB/s, 75s left"
        );
        assert_eq!(said(60), "reading holiday pi… year.tar  30%, 2.50 MiB/s, 75s left");
        assert_eq!(said(40), "holi…tar  30%, 2.50 MiB/s, 75s left");
        assert_eq!(said(20), "holi…tar  30%, 2.50");
        for width in 1..200 {
            let name = "w".repeat(99);
            let longest = line(
                width,
                "reading ",
                &name,
                (1, 1),
                1023.99 * 1024.0,
                Duration::from_secs(3540),
            );
            assert!(columns(&longest) < width, "{width}: {longest}");
            let whole = longest.ends_with(" 100%, 1023.99 KiB/s, 59m left");
            assert!(whole || width < 40, "{width}: {longest}");
        }
    }

    #[test]
    fn what_is_not_known_yet_is_not_made_up() {
        let text = line(80, "", "x", (0, 5), 0.0, Duration::ZERO);
        assert!(text.ends_with("]   0%, 0 B/s, ? left"), "{text}");
        assert!(line(80, "", "empty", (0, 0), 0.0, Duration::ZERO).contains("] 100%, "));
    }
}
