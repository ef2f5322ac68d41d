//! Rules as lines that people read and write.

mod error;
mod meant;
mod words;

pub use error::LineError;
pub(super) use meant::explained;
pub(super) use words::Words;

use super::limits::{Caps, Prefixes, Rate};
use super::rule::Rule;
use crate::address::TransportKind;
use std::fmt;
use std::str::FromStr;

/// 31 December 9999, the last second that has a text.
pub(super) const LAST_SECOND: u64 = 253_402_300_799;

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allow { "allow" } else { "block" })?;
        let mut about_all = true;
        let mut about = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            about_all = false;
            f.write_fmt(text)
        };
        if let Some(peer) = &self.peer {
            about(f, format_args!(" peer {peer}"))?;
        }
        match &self.network {
            Some(network) if network.is_single() => about(f, format_args!(" ip {}", network.first()))?,
            Some(network) => about(f, format_args!(" network {network}"))?,
            None => {}
        }
        match self.ports {
            Some((first, last)) if first == last => about(f, format_args!(" port {first}"))?,
            Some((first, last)) => about(f, format_args!(" port {first}-{last}"))?,
            None => {}
        }
        if let Some(direction) = self.direction {
            about(f, format_args!(" direction {direction}"))?;
        }
        if let Some(transport) = self.transport {
            about(f, format_args!(" transport {transport}"))?;
        }
        if let Some(listener) = &self.listener {
            about(f, format_args!(" listener {listener}"))?;
        }
        if about_all {
            f.write_str(" everything")?;
        }
        if let Some(until) = self.expires() {
            write!(f, " until {}", humantime::format_rfc3339_seconds(until))?;
        }
        match &self.note {
            Some(note) => write!(f, " note {note}"),
            None => Ok(()),
        }
    }
}

/// As it is displayed; the fields may stand in any order, a note last. A word that begins with `#`
/// begins a comment, outside of a note.
impl FromStr for Rule {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        rule(line).map_err(|error| explained(line, error, &|line| rule(line).map(drop)))
    }
}

fn rule(line: &str) -> Result<Rule, LineError> {
    let mut words = Words::of(line);
    match words.next() {
        Some("allow") => words.rule(Rule::allow()),
        Some("block") => words.rule(Rule::block()),
        other => Err(LineError::statement(other.unwrap_or_default())),
    }
}

impl fmt::Display for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v4 {} v6 {}", self.v4, self.v6)
    }
}

/// As in a file.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rate {} one-per ", self.direction)?;
        match self.interval.as_micros() {
            us if us % 1_000_000 == 0 => write!(f, "{}s", us / 1_000_000)?,
            us if us % 1000 == 0 => write!(f, "{}ms", us / 1000)?,
            us => write!(f, "{us}us")?,
        }
        write!(f, " burst {} {}", self.burst, self.prefixes)
    }
}

/// The lines that say what differs from none; none if nothing does.
impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, cap) in [
            ("total", self.total),
            ("inbound", self.inbound),
            ("outbound", self.outbound),
            ("pending-inbound", self.pending_inbound),
            ("pending-outbound", self.pending_outbound),
            ("per-peer", self.per_peer),
            ("per-ip", self.per_ip),
        ] {
            if let Some(most) = cap {
                writeln!(f, "cap {name} {most}")?;
            }
        }
        if let Some((most, prefixes)) = self.per_prefix {
            writeln!(f, "cap per-prefix {most} {prefixes}")?;
        }
        for (kind, cap) in TransportKind::ALL.iter().zip(self.per_transport) {
            if let Some(most) = cap {
                writeln!(f, "cap transport {kind} {most}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
