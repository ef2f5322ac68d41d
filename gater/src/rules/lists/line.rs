//! One line of a list, in bytes: names are in any encoding.

use super::ListFormat;
use super::error::ListError;
use crate::rules::cidr::{Cidr, CidrError};
use std::net::{IpAddr, Ipv4Addr};

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is empty, or a comment.
    Nothing,
    /// An entry that is not to be listed.
    PassedOver,
    Network(Cidr),
    /// Both included.
    Range(IpAddr, IpAddr),
}

/// `None` if it is no entry.
pub(super) fn entry(format: ListFormat, line: &[u8]) -> Option<Entry> {
    let entry = match format {
        ListFormat::PeerGuardian => peer_guardian(line.trim_ascii()),
        ListFormat::Emule => emule(line.trim_ascii()),
        _ => plain(line),
    }?;
    match entry {
        Entry::Range(first, last) => Cidr::covering(first, last).ok().map(|_| entry),
        _ => Some(entry),
    }
}

fn plain(line: &[u8]) -> Option<Entry> {
    let end = line.iter().position(|byte| matches!(byte, b'#' | b';'));
    let text = line[..end.unwrap_or(line.len())].trim_ascii();
    if text.is_empty() {
        return Some(Entry::Nothing);
    }
    let text = std::str::from_utf8(text).ok()?;
    match text.split_once('-') {
        Some((first, last)) => Some(Entry::Range(
            first.trim_ascii().parse().ok()?,
            last.trim_ascii().parse().ok()?,
        )),
        None => text.parse().ok().map(Entry::Network),
    }
}

/// `name:first-last`. The name may hold what separates the others.
fn peer_guardian(line: &[u8]) -> Option<Entry> {
    if line.is_empty() || line.starts_with(b"#") {
        return Some(Entry::Nothing);
    }
    let (rest, last) = split_last(line, b'-')?;
    let first = split_last(rest, b':').map_or(rest, |(_, first)| first);
    Some(Entry::Range(padded(first)?.into(), padded(last)?.into()))
}

/// `first - last , level , name`, or with a comma between the two. Without a level it is blocked.
fn emule(line: &[u8]) -> Option<Entry> {
    if line.is_empty() || line.starts_with(b"#") || line.starts_with(b";") || line.starts_with(b"//") {
        return Some(Entry::Nothing);
    }
    let mut fields = line.split(|byte| *byte == b',');
    let range = fields.next()?;
    let (first, last) = match range.contains(&b'-') {
        true => split_last(range, b'-')?,
        false => (range, fields.next()?),
    };
    let range = Entry::Range(any_ip(first)?, any_ip(last)?);
    let level = fields.next().and_then(|level| number(level.trim_ascii()));
    match level {
        Some(128..) => Some(Entry::PassedOver),
        _ => Some(range),
    }
}

fn split_last(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().rposition(|byte| *byte == at)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn any_ip(text: &[u8]) -> Option<IpAddr> {
    match padded(text) {
        Some(ip) => Some(ip.into()),
        None => std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok(),
    }
}

/// An IPv4 address, in which zeros may stand before each number. It is decimal all the same.
fn padded(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut numbers = text.trim_ascii().split(|byte| *byte == b'.');
    for octet in &mut octets {
        *octet = u8::try_from(number(numbers.next().filter(|digits| digits.len() <= 3)?)?).ok()?;
    }
    numbers.next().is_none().then(|| octets.into())
}

fn number(digits: &[u8]) -> Option<u32> {
    let plain = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| {
        digits
            .iter()
            .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
    })
}

/// Why a line is no entry, and what was probably meant.
#[cold]
pub(super) fn wrong(format: ListFormat, line: &[u8], at: usize) -> ListError {
    let found = String::from_utf8_lossy(line.trim_ascii()).into_owned();
    let expected = match format {
        ListFormat::PeerGuardian => "`name:192.0.2.0-192.0.2.255`",
        ListFormat::Emule => "`192.0.2.0 - 192.0.2.255 , 100 , name`",
        _ => "`192.0.2.0/24`, `192.0.2.7`, `192.0.2.0-192.0.2.255` or `/ip4/192.0.2.0/ipcidr/24`",
    };
    let other = [ListFormat::Plain, ListFormat::PeerGuardian, ListFormat::Emule]
        .into_iter()
        .find(|other| *other != format && matches!(entry(*other, line), Some(Entry::Network(_) | Entry::Range(..))));
    let mut expected = expected.to_owned();
    if let Some(other) = other {
        expected += &format!(" (in a list that is `{other}` it would be an entry)");
    }
    ListError::Entry {
        line: at,
        meant: meant(format, &found),
        found,
        expected,
    }
}

fn meant(format: ListFormat, found: &str) -> Option<String> {
    let (name, text) = match format {
        ListFormat::PeerGuardian => {
            let (name, _) = found.rsplit_once(':')?;
            found.split_at(name.len() + 1)
        }
        ListFormat::Emule => ("", found.split(',').next()?),
        _ => ("", found.split(['#', ';']).next()?),
    };
    let text = text.trim();
    if let Some((first, last)) = text.rsplit_once('-') {
        let ips = (any_ip(first.as_bytes())?, any_ip(last.as_bytes())?);
        let (first, last) = match Cidr::covering(ips.0, ips.1) {
            Err(CidrError::Order { first, last }) => (last, first),
            Err(_) => return None,
            Ok(_) => ips,
        };
        return Some(format!("{name}{first}-{last}"));
    }
    if !matches!(format, ListFormat::Plain | ListFormat::JsonLines | ListFormat::Kubo) {
        return None;
    }
    if let Err(CidrError::HostBits { meant }) = text.parse::<Cidr>() {
        return Some(meant.to_string());
    }
    let (ip, length) = text.split_once('/').unwrap_or((text, ""));
    if let Ok(IpAddr::V4(mask)) = length.parse() {
        let ones = mask.to_bits().leading_ones();
        let is_mask = ones + mask.to_bits().trailing_zeros() >= 32;
        let range = Cidr::around(ip.parse().ok()?, u8::try_from(ones).ok()?);
        return range.ok().filter(|_| is_mask).map(|range| range.to_string());
    }
    if length.is_empty()
        && let Some(prefix) = ip.strip_suffix(".*")
    {
        let octets = prefix.split('.').count();
        let first = format!("{prefix}{}", ".0".repeat(4_usize.checked_sub(octets)?));
        let range = Cidr::around(first.parse().ok()?, u8::try_from(8 * octets).ok()?);
        return range.ok().map(|range| range.to_string());
    }
    // Zeros before a number may mean octal to one program and decimal to another.
    let plain = padded(ip.as_bytes())?;
    match length {
        "" => Some(plain.to_string()),
        length => {
            let range = Cidr::around(plain.into(), length.trim_start_matches('0').parse().ok()?);
            range.ok().map(|range| range.to_string())
        }
    }
}
