//! Known prefixes as a text, for a file that outlives the process.
//!
//! ```text
//! libp2p-knock known prefixes 1
//! written 1764500400
//! 192.0.2.0/24 12
//! 2001:db8:1::/48 1440
//! end
//! ```
//!
//! When it was written, in seconds since 1970, and for each prefix how many minutes before that, at
//! most, a peer had authenticated from there. No peer and no address is in it. Lines are in the
//! order of the prefixes.

use super::super::prefix::Prefix;
// `core::net` has addresses and no sockets.
use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt::Write as _;
use std::time::Duration;

const HEADER: &str = "libp2p-knock known prefixes 1";
/// Of a day.
const MINUTES: u64 = 1440;
/// Lines of prefixes, at most.
const LINES: usize = 4096;
/// No text of ours has more bytes: each line takes 26 at most.
pub(crate) const MAX_SIZE: usize = 128 * 1024;

/// What a text says of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) prefix: Prefix,
    /// From 1 to [`MINUTES`].
    minutes: u64,
}

impl Line {
    /// Of a prefix from which a peer authenticated so long ago.
    pub(crate) fn new(prefix: Prefix, age: Duration) -> Self {
        let minutes = (age.as_secs() / 60 + 1).min(MINUTES);
        Self { prefix, minutes }
    }

    /// How long before the text was written, at most.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_secs(60 * self.minutes)
    }
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("line {line}: expected {expected}")]
    Line { line: usize, expected: &'static str },
    #[error("cut off: expected `end` in the last line")]
    NoEnd,
    #[error("too long: expected {MAX_SIZE} bytes at most")]
    TooLong,
}

/// The text that says so, written at `now`, in seconds since 1970.
pub(crate) fn encode(now: u64, lines: &[Line]) -> String {
    let mut text = format!("{HEADER}\nwritten {now}\n");
    for Line { prefix, minutes } in lines {
        // Writing to a `String` does not fail.
        let _ = match *prefix {
            Prefix::V4([a, b, c]) => writeln!(text, "{}/24 {minutes}", Ipv4Addr::new(a, b, c, 0)),
            Prefix::V6([a, b, c, d, e, f]) => {
                let mut octets = [0; 16];
                octets[..6].copy_from_slice(&[a, b, c, d, e, f]);
                writeln!(text, "{}/48 {minutes}", Ipv6Addr::from(octets))
            }
            Prefix::Unknown => Ok(()),
        };
    }
    text.push_str("end\n");
    text
}

/// When a text was written, in seconds since 1970, and what it says. All of it or nothing: what is
/// damaged is not believed.
///
/// # Errors
///
/// The first thing that is wrong.
pub(crate) fn decode(text: &[u8]) -> Result<(u64, Vec<Line>), Damage> {
    if text.len() > MAX_SIZE {
        return Err(Damage::TooLong);
    }
    let (mut written, mut lines, mut ended) = (None, Vec::new(), false);
    for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let expected = |expected| Damage::Line { line: at + 1, expected };
        let line = line.strip_suffix(b"\n").ok_or(Damage::NoEnd)?;
        let line = std::str::from_utf8(line).map_err(|_| expected("text"))?;
        match line {
            HEADER if at == 0 => {}
            _ if at == 0 => return Err(expected("`libp2p-knock known prefixes 1`")),
            line if at == 1 => {
                let seconds = line.strip_prefix("written ").and_then(number);
                written = Some(seconds.ok_or_else(|| expected("`written` and seconds since 1970"))?);
            }
            _ if ended => return Err(expected("nothing behind `end`")),
            "end" => ended = true,
            _ if lines.len() >= LINES => return Err(expected("`end` after 4096 prefixes at most")),
            line => lines.push(parse(line).ok_or_else(|| expected("a /24 or /48 and 1 to 1440 minutes, or `end`"))?),
        }
    }
    match written {
        Some(written) if ended => Ok((written, lines)),
        _ => Err(Damage::NoEnd),
    }
}

fn parse(line: &str) -> Option<Line> {
    let (prefix, minutes) = line.split_once(' ')?;
    let prefix = if let Some(ip) = prefix.strip_suffix("/24") {
        let [a, b, c, 0] = ip.parse::<Ipv4Addr>().ok()?.octets() else {
            return None;
        };
        Prefix::V4([a, b, c])
    } else {
        let ip = prefix.strip_suffix("/48")?.parse::<Ipv6Addr>().ok()?;
        let [a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] = ip.octets() else {
            return None;
        };
        Prefix::V6([a, b, c, d, e, f])
    };
    let minutes = number(minutes).filter(|minutes| (1..=MINUTES).contains(minutes))?;
    Some(Line { prefix, minutes })
}

/// Digits, and no sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_764_500_400;

    fn line(prefix: Prefix, minutes: u64) -> Line {
        Line { prefix, minutes }
    }

    #[test]
    fn what_is_written_is_read_and_holds_prefixes_and_ages_and_nothing_else() {
        let lines = [
            line(Prefix::V4([192, 0, 2]), 12),
            line(Prefix::V6([0x20, 0x01, 0x0d, 0xb8, 0, 1]), 1440),
        ];
        let text = encode(NOW, &lines);
        let expected = [
            "libp2p-knock known prefixes 1",
            "written 1764500400",
            "192.0.2.0/24 12",
            "2001:db8:1::/48 1440",
            "end",
            "",
        ];
        assert_eq!(text, expected.join("\n"));
        assert_eq!(decode(text.as_bytes()), Ok((NOW, lines.to_vec())));
        assert_eq!(decode(encode(u64::MAX, &[]).as_bytes()), Ok((u64::MAX, Vec::new())));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let good = encode(NOW, &[line(Prefix::V4([192, 0, 2]), 12)]);
        for (text, at) in [
            (good.replacen('1', "2", 1), 1),
            (format!("\n{good}"), 1),
            (good.replace("written", "read"), 2),
            (good.replace("1764500400", "+7"), 2),
            (good.replace("1764500400", "99999999999999999999"), 2),
            (good.replace("2.0/24", "2.1/24"), 3),
            (good.replace("2.0/24", "2.0/23"), 3),
            (good.replace("/24 12", "/24  12"), 3),
            (good.replace("/24 12", "/24 0"), 3),
            (good.replace("/24 12", "/24 1441"), 3),
            (good.replace("192.0.2.0/24", "2001:db8:0:1::/48"), 3),
            (good.replace("192.0.2.0/24", ""), 3),
            (format!("{good}end\n"), 5),
            (format!("{good}\n"), 5),
        ] {
            match decode(text.as_bytes()) {
                Err(Damage::Line { line, .. }) => assert_eq!(line, at, "{text}"),
                other => panic!("{other:?} of {text}"),
            }
        }
        for cut in 0..good.len() {
            assert!(decode(&good.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode(&vec![b'\n'; MAX_SIZE + 1]), Err(Damage::TooLong));
        let mut noise = good.clone().into_bytes();
        noise[60] = 0xff;
        assert!(decode(&noise).is_err());
    }

    #[test]
    fn the_longest_text_fits_its_bound_and_one_line_more_is_refused() {
        let mut lines = vec![line(Prefix::V6([0xff; 6]), 1440); LINES];
        let text = encode(u64::MAX, &lines);
        assert!(text.len() <= MAX_SIZE);
        assert_eq!(decode(text.as_bytes()), Ok((u64::MAX, lines.clone())));
        lines.push(line(Prefix::V6([0xff; 6]), 1440));
        let refused = decode(encode(NOW, &lines).as_bytes());
        assert!(matches!(refused, Err(Damage::Line { line: 4099, .. })), "{refused:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_reason_to_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
            // Behind what is in order, too.
            let mut text = encode(NOW, &[]).into_bytes();
            text.truncate(text.len() - 4);
            text.extend_from_slice(&bytes);
            let _ = decode(&text);
        }
    }
}
