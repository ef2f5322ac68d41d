//! A list, from its first byte to its last.

use super::error::ListError;
use super::format::ListFormat;
use super::line::{self, Entry};
use super::{Cidr, json};
use crate::rules::line::{LONGEST_LINE, next_line};
use crate::rules::networks::ByFamily;
use crate::rules::print::{Hashing, Print};
use std::io::{BufRead, BufReader, Cursor, Read};

/// Most networks of a list, after ranges have become networks.
pub(super) const MOST_NETWORKS: usize = 1 << 22;
/// The longest document of JSON, in bytes.
pub(super) const LONGEST_DOCUMENT: usize = 16 << 20;
/// By how many bytes a format is told.
const BEGINNING: usize = 1 << 16;

/// Before UTF-8, as some editors write it. In the middle where lists were put together.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

pub(super) struct Content {
    /// In the order in which they are listed.
    pub(super) networks: ByFamily<()>,
    pub(super) passed_over: usize,
    pub(super) format: ListFormat,
    pub(super) print: Print,
}

pub(super) fn read(input: impl Read, format: Option<ListFormat>) -> Result<Content, ListError> {
    let mut hashing = Hashing::new(input);
    let mut beginning = Vec::new();
    let begun = hashing.by_ref().take(BEGINNING as u64).read_to_end(&mut beginning);
    begun.map_err(ListError::Io)?;
    if let Some((found, expected)) = no_list(&beginning) {
        return Err(ListError::NoList { found, expected });
    }
    let format = format.unwrap_or_else(|| ListFormat::detect(&beginning));
    let mut input = Cursor::new(beginning).chain(hashing.by_ref());
    let (networks, passed_over) = match format {
        ListFormat::Kubo => (
            document(&mut input)?.into_iter().map(|network| (network, ())).collect(),
            0,
        ),
        _ => lines(&mut BufReader::with_capacity(BEGINNING, &mut input), format)?,
    };
    if networks.len() == 0 {
        return Err(ListError::Empty { format });
    }
    Ok(Content {
        networks,
        passed_over,
        format,
        print: hashing.print(),
    })
}

/// One network more, of the line `at`.
fn put(network: Cidr, networks: &mut ByFamily<()>, at: usize) -> Result<(), ListError> {
    if networks.len() >= MOST_NETWORKS {
        return Err(ListError::TooMany { line: at });
    }
    networks.push(network, ());
    Ok(())
}

/// What it is, and what it should be.
fn no_list(beginning: &[u8]) -> Option<(&'static str, &'static str)> {
    const UNPACKED: &str = "a list of text: unpack it first";
    const FAILED: &str = "a list: did a download fail?";
    const KNOWN: &[(&[u8], &str, &str)] = &[
        (b"\x1f\x8b", "a file packed by gzip", UNPACKED),
        (b"PK\x03\x04", "a ZIP archive", UNPACKED),
        (b"\xfd7zXZ", "a file packed by xz", UNPACKED),
        (b"7z\xbc\xaf", "a 7z archive", UNPACKED),
        (b"\x28\xb5\x2f\xfd", "a file packed by zstd", UNPACKED),
        (
            b"\xff\xff\xff\xffP2B",
            "a binary list of PeerGuardian",
            "its form as text, P2P",
        ),
        (b"\xff\xfe", "UTF-16", "UTF-8"),
        (b"\xfe\xff", "UTF-16", "UTF-8"),
        (b"<!", "a page of HTML", FAILED),
        (b"<html", "a page of HTML", FAILED),
        (b"<?xml", "a document of XML", FAILED),
    ];
    let text = beginning.strip_prefix(BOM).unwrap_or(beginning).trim_ascii_start();
    let known = KNOWN
        .iter()
        .find(|(magic, ..)| beginning.starts_with(magic) || text.starts_with(magic));
    known.map(|(_, found, expected)| (*found, *expected))
}

/// Too short for more than [`MOST_NETWORKS`].
fn document(input: &mut impl Read) -> Result<Vec<Cidr>, ListError> {
    let mut document = Vec::new();
    let read = input.take(LONGEST_DOCUMENT as u64 + 1).read_to_end(&mut document);
    if read.map_err(ListError::Io)? > LONGEST_DOCUMENT {
        return Err(ListError::TooLarge);
    }
    json::filters(document.strip_prefix(BOM).unwrap_or(&document))
}

fn lines(input: &mut impl BufRead, format: ListFormat) -> Result<(ByFamily<()>, usize), ListError> {
    let (mut networks, mut passed_over) = (ByFamily::default(), 0);
    let (mut entries, mut said) = (0, None::<u64>);
    let mut line = Vec::new();
    for at in 1.. {
        line.clear();
        if next_line(input, &mut line).map_err(ListError::Io)?.is_none() {
            break;
        }
        if line.len() > LONGEST_LINE {
            return Err(ListError::TooLong { line: at });
        }
        let line = line.strip_prefix(BOM).unwrap_or(&line);
        let entry = match format {
            ListFormat::JsonLines => {
                let (entry, records) = json::entry(line, at)?;
                if let Some(records) = records {
                    // Each part of lists that were put together says its own.
                    said = Some(said.unwrap_or(0).saturating_add(records));
                }
                entry
            }
            _ => line::entry(format, line).ok_or_else(|| line::wrong(format, line, at))?,
        };
        match entry {
            Entry::Nothing => continue,
            Entry::PassedOver => passed_over += 1,
            Entry::Network(network) => put(network, &mut networks, at)?,
            Entry::Range(first, last) => {
                for network in Cidr::covering(first, last).map_err(|_| line::wrong(format, line, at))? {
                    put(network, &mut networks, at)?;
                }
            }
        }
        entries += u64::from(entry != Entry::PassedOver);
    }
    match said {
        Some(said) if said != entries => Err(ListError::Count { said, found: entries }),
        _ => Ok((networks, passed_over)),
    }
}
