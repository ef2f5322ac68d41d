//! Lists that are JSON.

use super::error::ListError;
use super::line::{self, Entry};
use super::{Cidr, ListFormat};
use crate::rules::line::LONGEST_LINE;
use crate::shown::Found;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A line of Spamhaus DROP. What else it says is not looked at.
#[derive(Deserialize)]
struct Line<'l> {
    #[serde(borrow, default)]
    cidr: Option<Cow<'l, str>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'l, str>>,
    #[serde(default)]
    records: Option<u64>,
}

/// What a line says, and how many entries the list has, if it says that.
pub(super) fn entry(line: &[u8], at: usize) -> Result<(Entry, Option<u64>), ListError> {
    let text = line.trim_ascii();
    if text.is_empty() {
        return Ok((Entry::Nothing, None));
    }
    let parsed: Line<'_> = serde_json::from_slice(text).map_err(|error| problem(&error, at))?;
    match (parsed.cidr, parsed.kind.as_deref()) {
        (Some(cidr), _) => match line::entry(ListFormat::Plain, cidr.as_bytes()) {
            Some(entry @ (Entry::Network(_) | Entry::Range(..))) => Ok((entry, None)),
            _ => Err(line::wrong(ListFormat::JsonLines, cidr.as_bytes(), at)),
        },
        (None, Some("metadata")) => Ok((Entry::PassedOver, parsed.records)),
        (None, _) => Err(ListError::Entry {
            line: at,
            found: String::from_utf8_lossy(&text[..text.len().min(LONGEST_LINE)]).into_owned(),
            expected: "an object with `\"cidr\":\"192.0.2.0/24\"`".to_owned(),
            meant: None,
        }),
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "Swarm", default)]
    swarm: Option<Swarm>,
}

#[derive(Deserialize)]
struct Swarm {
    #[serde(rename = "AddrFilters", default)]
    filters: Option<Vec<Filter>>,
}

/// A string that is a network, however written.
struct Filter(Cidr);

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Filter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a filter such as \"/ip4/10.0.0.0/ipcidr/8\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Filter, E> {
                let wrong = |error| E::custom(format_args!("invalid filter {}: {error}", Found(text)));
                text.parse().map(Filter).map_err(wrong)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The filters in a configuration of Kubo, or in an array of them.
pub(super) fn filters(document: &[u8]) -> Result<Vec<Cidr>, ListError> {
    let filters = match document.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice(document).map(Some),
        _ => serde_json::from_slice(document).map(|config: Config| config.swarm?.filters),
    };
    let filters: Vec<Filter> = filters.map_err(|error| problem(&error, 1))?.unwrap_or_default();
    Ok(filters.into_iter().map(|Filter(network)| network).collect())
}

/// What is wrong with JSON that begins in the line `first`: its first 256 characters, for a string of
/// the document may be in it.
fn problem(error: &serde_json::Error, first: usize) -> ListError {
    let (line, column) = (first + error.line().saturating_sub(1), error.column().max(1));
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    ListError::Json {
        line,
        column,
        problem: text.strip_suffix(&place).unwrap_or(&text).chars().take(256).collect(),
    }
}
