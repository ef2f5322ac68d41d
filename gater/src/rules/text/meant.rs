//! What a line that cannot be understood probably meant.
//!
//! The word at fault is replaced by what stands nearest to it, until the line can be understood: what
//! is suggested is never another error of that line.

use super::error::LineError;
use crate::address::{Parts, TransportKind};
use crate::rules::cidr::{Cidr, CidrError};
use libp2p_core::Multiaddr;
use libp2p_core::multiaddr::Protocol;
use libp2p_identity::PeerId;
use std::net::IpAddr;

/// Words that are replaced in one line, at most.
const MOST: usize = 3;
/// Longer words are no typing errors of any word.
const LONGEST: usize = 200;

/// Every word that the format has. What does not fit where it stands is not suggested.
const WORDS: &[&str] = &[
    "admit",
    "allow",
    "allowed",
    "block",
    "blocked",
    "burst",
    "cap",
    "detect",
    "direction",
    "emule",
    "end",
    "everybody",
    "everyone",
    "everything",
    "import",
    "inbound",
    "ip",
    "json-lines",
    "known-addresses",
    "kubo",
    "list",
    "listener",
    "member",
    "members",
    "network",
    "note",
    "one-per",
    "outbound",
    "p2p",
    "peer",
    "pending-inbound",
    "pending-outbound",
    "per-ip",
    "per-peer",
    "per-prefix",
    "plain",
    "port",
    "range",
    "rate",
    "refuse-names",
    "require-knock",
    "set",
    "total",
    "until",
];

/// What other programs say for the same.
const SAME: &[(&str, &str)] = &[
    ("accept", "allow"),
    ("addr", ""),
    ("address", ""),
    ("all", "everything"),
    ("ban", "block"),
    ("cidr", "network"),
    ("comment", "note"),
    ("deny", "block"),
    ("drop", "block"),
    ("everybody", "everyone"),
    ("expires", "until"),
    ("from", ""),
    ("in", "inbound"),
    ("include", "import"),
    ("out", "outbound"),
    ("permit", "allow"),
    ("reject", "block"),
    ("subnet", "network"),
    ("trusted", "allowed"),
    ("via", "transport"),
];

/// `error` of `line`, and the line that was probably meant. `parse` understands lines.
pub(in super::super) fn explained(
    line: &str,
    error: LineError,
    parse: &dyn Fn(&str) -> Result<(), LineError>,
) -> LineError {
    let meant = repair(line, &error, parse, MOST);
    error.meaning(meant)
}

fn repair(line: &str, error: &LineError, parse: &dyn Fn(&str) -> Result<(), LineError>, left: usize) -> Option<String> {
    let word = error.word().filter(|word| word.len() <= LONGEST)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|other| *other == word)?;
    for (before, instead) in candidates(error, word) {
        let from = at.checked_sub(before)?;
        let instead = Some(instead.as_str()).filter(|instead| !instead.is_empty());
        let kept = words[..from].iter().copied().chain(instead);
        let repaired = kept.chain(words[at + 1..].iter().copied());
        let repaired = repaired.collect::<Vec<_>>().join(" ");
        match parse(&repaired) {
            Ok(()) => return Some(repaired),
            Err(error) if left > 1 => {
                if let Some(meant) = repair(&repaired, &error, parse, left - 1) {
                    return Some(meant);
                }
            }
            Err(_) => {}
        }
    }
    None
}

/// What may stand in place of the word and of how many before it.
fn candidates(error: &LineError, word: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    let field = fields(word);
    match error {
        LineError::Statement { .. } => all.extend(field.map(|field| (0, format!("block {field}")))),
        LineError::Field { .. } => all.extend(field.map(|field| (0, field))),
        // Of another kind than the field before it.
        _ => {
            all.extend(field.map(|field| (1, field)));
            all.extend(time(word).map(|time| (0, time)));
        }
    }
    let lower = word.to_ascii_lowercase();
    let same = SAME.iter().filter(|(other, _)| *other == lower);
    all.extend(same.map(|(_, ours)| (0, (*ours).to_owned())));
    let transports = TransportKind::ALL.map(TransportKind::name);
    let mut near: Vec<(usize, &str)> = WORDS
        .iter()
        .copied()
        .chain(transports)
        .map(|ours| (strsim::osa_distance(&lower, ours), ours))
        .filter(|(distance, ours)| *distance * 3 <= ours.len().max(3) && *ours != word)
        .collect();
    near.sort_unstable();
    all.extend(near.into_iter().map(|(_, ours)| (0, ours.to_owned())));
    all
}

/// The field and the value that a value alone stands for.
fn fields(word: &str) -> Option<String> {
    if let Ok(peer) = word.parse::<PeerId>() {
        return Some(format!("peer {peer}"));
    }
    if let Some((first, last)) = word.split_once('-')
        && let (Ok(first), Ok(last)) = (first.parse::<IpAddr>(), last.parse::<IpAddr>())
    {
        // Several ranges are several lines.
        let mut ranges = Cidr::covering(first, last)
            .or_else(|_| Cidr::covering(last, first))
            .ok()?;
        let range = ranges.next()?;
        return ranges.next().is_none().then(|| network(range));
    }
    match word.parse::<Cidr>() {
        Ok(range) | Err(CidrError::HostBits { meant: range }) => return Some(network(range)),
        Err(_) => {}
    }
    if let Some((ip, mask)) = word.split_once('/')
        && let (Ok(ip), Ok(IpAddr::V4(mask))) = (ip.parse::<IpAddr>(), mask.parse::<IpAddr>())
        && mask.to_bits().leading_ones() + mask.to_bits().trailing_zeros() >= 32
    {
        let length = u8::try_from(mask.to_bits().leading_ones()).ok()?;
        return Cidr::around(ip, length).ok().map(network);
    }
    if word.starts_with('/') {
        return address(&word.parse().ok()?);
    }
    word.parse::<u16>().ok().map(|port| format!("port {port}"))
}

fn network(range: Cidr) -> String {
    match range.is_single() {
        true => format!("ip {}", range.first()),
        false => format!("network {range}"),
    }
}

/// The fields that an address stands for.
fn address(address: &Multiaddr) -> Option<String> {
    let parts = Parts::of(address);
    let peer = address.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(format!("peer {peer}")),
        _ => None,
    });
    let fields = [
        peer,
        parts.ip.map(|ip| format!("ip {ip}")),
        parts.port.map(|port| format!("port {port}")),
    ];
    let fields: Vec<String> = fields.into_iter().flatten().collect();
    (!fields.is_empty()).then(|| fields.join(" "))
}

/// A day, and a time without its zone.
fn time(word: &str) -> Option<String> {
    let time = match word.contains(['T', 't']) {
        true => format!("{word}Z"),
        false => format!("{word}T00:00:00Z"),
    };
    humantime::parse_rfc3339(&time).is_ok().then_some(time)
}
