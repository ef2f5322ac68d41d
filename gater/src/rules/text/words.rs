//! The words of a line, and what they say.

use super::super::cidr::Cidr;
use super::super::limits::{Caps, Prefixes, Rate, index};
use super::super::rule::{Rule, seconds};
use super::error::LineError;
use crate::address::TransportKind;
use crate::context::Direction;
use libp2p_identity::PeerId;
use std::num::NonZeroU32;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

/// A word that begins with it begins a comment, up to the end of the line. Not in a note, which has
/// the rest of its line.
const COMMENT: char = '#';

const TRANSPORT: &str = "a transport: knock, tcp, quic, websocket, webtransport, webrtc, relayed, memory or other";

const CAPS: &str = "`total`, `inbound`, `outbound`, `pending-inbound`, `pending-outbound`, `per-peer`, `per-ip`, \
                    `per-prefix` or `transport`";

/// What is left of a line.
pub(in super::super) struct Words<'l> {
    words: SplitWhitespace<'l>,
    line: &'l str,
}

impl<'l> Words<'l> {
    pub(in super::super) fn of(line: &'l str) -> Self {
        Self {
            words: line.split_whitespace(),
            line,
        }
    }

    /// `None` at the end of the line, and where a comment begins.
    pub(in super::super) fn next(&mut self) -> Option<&'l str> {
        let word = self.words.next()?;
        if word.starts_with(COMMENT) {
            self.words = "".split_whitespace();
            return None;
        }
        Some(word)
    }

    pub(in super::super) fn value(&mut self, field: &'static str) -> Result<&'l str, LineError> {
        self.next().ok_or(LineError::Missing(field))
    }

    /// Nothing more.
    pub(in super::super) fn end(&mut self) -> Result<(), LineError> {
        match self.next() {
            Some(more) => Err(LineError::field(more)),
            None => Ok(()),
        }
    }

    pub(in super::super) fn parsed<T: FromStr>(
        &mut self,
        field: &'static str,
        wanted: &'static str,
    ) -> Result<T, LineError> {
        let value = self.value(field)?;
        value.parse().map_err(|_| LineError::value(value, wanted))
    }

    pub(in super::super) fn peer(&mut self) -> Result<PeerId, LineError> {
        self.parsed("peer", "a peer id")
    }

    /// What stands behind `word`, to the end of the line.
    fn rest_behind(&mut self, word: &str) -> &'l str {
        self.words = "".split_whitespace();
        self.line[self.offset(word) + word.len()..].trim()
    }

    /// What is left of the line before a comment, as one value.
    pub(in super::super) fn rest(&mut self, field: &'static str) -> Result<&'l str, LineError> {
        let first = self.value(field)?;
        let mut end = self.offset(first) + first.len();
        while let Some(word) = self.next() {
            end = self.offset(word) + word.len();
        }
        Ok(&self.line[self.offset(first)..end])
    }

    /// Where in the line a word of it begins.
    fn offset(&self, word: &str) -> usize {
        word.as_ptr().addr() - self.line.as_ptr().addr()
    }

    pub(in super::super) fn rule(&mut self, mut rule: Rule) -> Result<Rule, LineError> {
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
                    let ip: std::net::IpAddr = self.parsed("ip", "an IP address")?;
                    once(&mut rule.network, "network", ip.into())?;
                }
                "port" => once(&mut rule.ports, "port", self.ports()?)?,
                "direction" => once(&mut rule.direction, "direction", self.direction()?)?,
                "transport" => once(&mut rule.transport, "transport", self.transport()?)?,
                "listener" => once(&mut rule.listener, "listener", self.parsed("listener", "a multiaddr")?)?,
                "until" => {
                    let value = self.value("until")?;
                    let time = humantime::parse_rfc3339(value)
                        .map_err(|_| LineError::value(value, "a time such as 2027-01-31T00:00:00Z"))?;
                    once(&mut rule.until, "until", seconds(time))?;
                }
                "note" => rule = rule.note(self.rest_behind(word)),
                other => return Err(LineError::field(other)),
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
            (true, Some(())) => Err(LineError::field("everything")),
            _ => Ok(rule),
        }
    }

    pub(in super::super) fn network(&mut self) -> Result<Cidr, LineError> {
        let value = self.value("network")?;
        value.parse().map_err(|error| LineError::network(value, error))
    }

    fn ports(&mut self) -> Result<(u16, u16), LineError> {
        let value = self.value("port")?;
        let (first, last) = value.split_once('-').unwrap_or((value, value));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) => Ok((first, last)),
            _ => Err(LineError::value(
                value,
                "a port from 0 to 65535, or two with a hyphen between them",
            )),
        }
    }

    pub(in super::super) fn direction(&mut self) -> Result<Direction, LineError> {
        match self.value("direction")? {
            "inbound" => Ok(Direction::Inbound),
            "outbound" => Ok(Direction::Outbound),
            other => Err(LineError::value(other, "`inbound` or `outbound`")),
        }
    }

    pub(in super::super) fn transport(&mut self) -> Result<TransportKind, LineError> {
        let value = self.value("transport")?;
        let kind = TransportKind::ALL.into_iter().find(|kind| kind.name() == value);
        kind.ok_or_else(|| LineError::value(value, TRANSPORT))
    }

    /// `v4 24 v6 48`.
    fn prefixes(&mut self) -> Result<Prefixes, LineError> {
        self.word("v4")?;
        let v4 = self.number("v4", 32)?;
        self.word("v6")?;
        Ok(Prefixes::new(v4, self.number("v6", 128)?))
    }

    pub(in super::super) fn word(&mut self, wanted: &'static str) -> Result<(), LineError> {
        match self.next() {
            Some(word) if word == wanted => Ok(()),
            Some(other) => Err(LineError::field(other)),
            None => Err(LineError::Missing(wanted)),
        }
    }

    fn number(&mut self, field: &'static str, at_most: u8) -> Result<u8, LineError> {
        let value: u8 = self.parsed(field, "a prefix length")?;
        match value <= at_most {
            true => Ok(value),
            false => Err(LineError::value(&value.to_string(), "a prefix length")),
        }
    }

    /// What stands behind `cap`.
    pub(in super::super) fn cap(&mut self, caps: &mut Caps) -> Result<(), LineError> {
        const NUMBER: &str = "a number of connections";
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
                let slot = caps.per_transport.get_mut(index(kind));
                ("transport", slot.ok_or(LineError::Missing("transport"))?)
            }
            other => return Err(LineError::value(other, CAPS)),
        };
        match slot.replace(self.parsed(field, NUMBER)?) {
            Some(_) => Err(LineError::Twice(field)),
            None => Ok(()),
        }
    }

    /// What stands behind `rate`.
    pub(in super::super) fn rate(&mut self) -> Result<Rate, LineError> {
        let direction = self.direction()?;
        self.word("one-per")?;
        let value = self.value("one-per")?;
        let interval = interval(value)
            .ok_or_else(|| LineError::value(value, "a time such as 5s, 200ms or 50us, a day at most"))?;
        self.word("burst")?;
        let burst: NonZeroU32 = self.parsed("burst", "a number from 1 on")?;
        let rate = match direction {
            Direction::Inbound => Rate::accepts(interval, burst),
            Direction::Outbound => Rate::dials(interval, burst),
        };
        Ok(rate.per_prefix(self.prefixes()?))
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
