//! Rules as lines that people read and write.

use super::change::RuleError;
use super::cidr::{Cidr, CidrError};
use super::limits::{Caps, Prefixes, Rate};
use super::rule::Rule;
use crate::address::TransportKind;
use crate::context::Direction;
use libp2p_identity::PeerId;
use std::fmt;
use std::num::NonZeroU32;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The first line is not what a file of rules begins with. An empty file has none.
    #[error("a file of rules begins with the line `libp2p-gater rules 1`")]
    Header,
    /// A version that this one does not know.
    #[error("version {found} of the format is newer than this program, which knows version 1")]
    Newer {
        /// Which version.
        found: u64,
    },
    /// The last line is not the one that a file of rules ends with: it was cut short.
    #[error("the file was cut short: its last line is not `end`")]
    NoEnd,
    /// Something stands behind the last line.
    #[error("something stands behind `end`")]
    BehindEnd,
    /// Not UTF-8, or more than 4,096 bytes.
    #[error("not a line of text of at most 4096 bytes")]
    NotText,
    /// The line begins with a word that means nothing here.
    #[error("unknown statement `{0}`")]
    Statement(String),
    /// A word further on means nothing here.
    #[error("unknown field `{0}`")]
    Field(String),
    /// A word needs another one behind it.
    #[error("`{0}` wants a value")]
    Missing(&'static str),
    /// It has been said before.
    #[error("`{0}` is said twice")]
    Twice(&'static str),
    /// The rule names nothing.
    #[error("the rule is about nothing; `everything` would be about everything")]
    Nothing,
    /// A value is not what its field wants.
    #[error("`{value}` is no {wanted}")]
    Value {
        /// What was found.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A range of addresses is none.
    #[error("`{value}` is no network: {error}")]
    Network {
        /// What was found.
        value: String,
        /// Why.
        error: CidrError,
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

/// As it is displayed; the fields may stand in any order, a note last.
impl FromStr for Rule {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let mut words = Words::of(line);
        match words.next() {
            Some("allow") => words.rule(Self::allow()),
            Some("block") => words.rule(Self::block()),
            other => Err(LineError::Statement(other.unwrap_or_default().to_owned())),
        }
    }
}

/// What is left of a line.
pub(super) struct Words<'l> {
    words: SplitWhitespace<'l>,
    line: &'l str,
}

impl<'l> Words<'l> {
    pub(super) fn of(line: &'l str) -> Self {
        Self {
            words: line.split_whitespace(),
            line,
        }
    }

    pub(super) fn next(&mut self) -> Option<&'l str> {
        self.words.next()
    }

    fn value(&mut self, field: &'static str) -> Result<&'l str, LineError> {
        self.next().ok_or(LineError::Missing(field))
    }

    /// Nothing more.
    pub(super) fn end(&mut self) -> Result<(), LineError> {
        match self.next() {
            Some(more) => Err(LineError::Field(more.to_owned())),
            None => Ok(()),
        }
    }

    pub(super) fn parsed<T: FromStr>(&mut self, field: &'static str, wanted: &'static str) -> Result<T, LineError> {
        let value = self.value(field)?;
        value.parse().map_err(|_| wrong(value, wanted))
    }

    pub(super) fn peer(&mut self) -> Result<PeerId, LineError> {
        self.parsed("peer", "peer id")
    }

    /// What stands behind `word`, to the end of the line.
    fn rest_behind(&mut self, word: &str) -> &'l str {
        let at = word.as_ptr().addr() - self.line.as_ptr().addr() + word.len();
        self.words = "".split_whitespace();
        self.line[at..].trim()
    }

    pub(super) fn rule(&mut self, mut rule: Rule) -> Result<Rule, LineError> {
        fn once<T>(slot: &mut Option<T>, field: &'static str, value: T) -> Result<(), LineError> {
            match slot.replace(value) {
                Some(_) => Err(LineError::Twice(field)),
                None => Ok(()),
            }
        }
        let mut everything = None;
        while let Some(word) = self.next() {
            match word {
                "everything" => once(&mut everything, "everything", ())?,
                "peer" => once(&mut rule.peer, "peer", self.peer()?)?,
                "network" => once(&mut rule.network, "network", self.network()?)?,
                "ip" => {
                    let ip: std::net::IpAddr = self.parsed("ip", "IP address")?;
                    once(&mut rule.network, "network", ip.into())?;
                }
                "port" => once(&mut rule.ports, "port", self.ports()?)?,
                "direction" => once(&mut rule.direction, "direction", self.direction()?)?,
                "transport" => once(&mut rule.transport, "transport", self.transport()?)?,
                "listener" => once(&mut rule.listener, "listener", self.parsed("listener", "multiaddr")?)?,
                "until" => {
                    let value = self.value("until")?;
                    let time = humantime::parse_rfc3339(value)
                        .map_err(|_| wrong(value, "time such as 2027-01-31T00:00:00Z"))?;
                    once(&mut rule.until, "until", super::rule::seconds(time))?;
                }
                "note" => rule = rule.note(self.rest_behind(word)),
                other => return Err(LineError::Field(other.to_owned())),
            }
        }
        let about = rule.peer.is_some()
            || rule.network.is_some()
            || rule.ports.is_some()
            || rule.direction.is_some()
            || rule.transport.is_some()
            || rule.listener.is_some();
        match (about, everything) {
            (false, None) => Err(LineError::Nothing),
            (true, Some(())) => Err(LineError::Field("everything".to_owned())),
            _ => Ok(rule),
        }
    }

    fn network(&mut self) -> Result<Cidr, LineError> {
        let value = self.value("network")?;
        value.parse().map_err(|error| LineError::Network {
            value: value.to_owned(),
            error,
        })
    }

    fn ports(&mut self) -> Result<(u16, u16), LineError> {
        let value = self.value("port")?;
        let (first, last) = value.split_once('-').unwrap_or((value, value));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) => Ok((first, last)),
            _ => Err(wrong(value, "port from 0 to 65535, or two with a hyphen between them")),
        }
    }

    pub(super) fn direction(&mut self) -> Result<Direction, LineError> {
        match self.value("direction")? {
            "inbound" => Ok(Direction::Inbound),
            "outbound" => Ok(Direction::Outbound),
            other => Err(wrong(other, "direction: inbound or outbound")),
        }
    }

    pub(super) fn transport(&mut self) -> Result<TransportKind, LineError> {
        let value = self.value("transport")?;
        let kind = TransportKind::ALL.into_iter().find(|kind| kind.name() == value);
        kind.ok_or_else(|| wrong(value, "transport"))
    }

    /// `v4 24 v6 48`.
    fn prefixes(&mut self) -> Result<Prefixes, LineError> {
        self.word("v4")?;
        let v4 = self.number("v4", 32)?;
        self.word("v6")?;
        Ok(Prefixes::new(v4, self.number("v6", 128)?))
    }

    pub(super) fn word(&mut self, wanted: &'static str) -> Result<(), LineError> {
        match self.next() {
            Some(word) if word == wanted => Ok(()),
            Some(other) => Err(LineError::Field(other.to_owned())),
            None => Err(LineError::Missing(wanted)),
        }
    }

    fn number(&mut self, field: &'static str, at_most: u8) -> Result<u8, LineError> {
        let value: u8 = self.parsed(field, "length of a prefix")?;
        match value <= at_most {
            true => Ok(value),
            false => Err(wrong(&value.to_string(), "length of a prefix")),
        }
    }

    /// What stands behind `cap`.
    pub(super) fn cap(&mut self, caps: &mut Caps) -> Result<(), LineError> {
        const NUMBER: &str = "number of connections";
        let (field, slot) = match self.value("cap")? {
            "total" => ("total", &mut caps.total),
            "inbound" => ("inbound", &mut caps.inbound),
            "outbound" => ("outbound", &mut caps.outbound),
            "pending-inbound" => ("pending-inbound", &mut caps.pending_inbound),
            "pending-outbound" => ("pending-outbound", &mut caps.pending_outbound),
            "per-peer" => ("per-peer", &mut caps.per_peer),
            "per-ip" => ("per-ip", &mut caps.per_ip),
            "per-prefix" => {
                let most = self.parsed("per-prefix", NUMBER)?;
                return match caps.per_prefix.replace((most, self.prefixes()?)) {
                    Some(_) => Err(LineError::Twice("per-prefix")),
                    None => Ok(()),
                };
            }
            "transport" => {
                let kind = self.transport()?;
                let slot = caps.per_transport.get_mut(super::limits::index(kind));
                ("transport", slot.ok_or(LineError::Missing("transport"))?)
            }
            other => return Err(LineError::Field(other.to_owned())),
        };
        match slot.replace(self.parsed(field, NUMBER)?) {
            Some(_) => Err(LineError::Twice(field)),
            None => Ok(()),
        }
    }

    /// What stands behind `rate`.
    pub(super) fn rate(&mut self) -> Result<Rate, LineError> {
        let direction = self.direction()?;
        self.word("one-per")?;
        let value = self.value("one-per")?;
        let interval = interval(value).ok_or_else(|| wrong(value, "time such as 5s, 200ms or 50us, a day at most"))?;
        self.word("burst")?;
        let burst: NonZeroU32 = self.parsed("burst", "number from 1 on")?;
        let rate = match direction {
            Direction::Inbound => Rate::accepts(interval, burst),
            Direction::Outbound => Rate::dials(interval, burst),
        };
        Ok(rate.per_prefix(self.prefixes()?))
    }
}

fn wrong(value: &str, wanted: &'static str) -> LineError {
    LineError::Value {
        value: value.to_owned(),
        wanted,
    }
}

fn interval(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let time = match unit {
        "s" => Duration::from_secs(number),
        "ms" => Duration::from_millis(number),
        "us" => Duration::from_micros(number),
        _ => return None,
    };
    (Duration::from_micros(1)..=Duration::from_secs(86_400))
        .contains(&time)
        .then_some(time)
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
