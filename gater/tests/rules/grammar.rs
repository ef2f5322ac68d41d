//! The README's grammar of a file of rules, against what is read and what is written.

use crate::file::everything;
use libp2p_gater::{Cidr, FileError, LineError, ListError, RuleError, Rules};
use libp2p_identity::PeerId;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

const README: &str = include_str!("../../README.md");

/// The right side of a production.
#[derive(Debug, Clone)]
enum Part {
    Word(String),
    Symbol(String),
    All(Vec<Self>),
    Any(Vec<Self>),
    Maybe(Box<Self>),
    Often(Box<Self>),
}

struct Grammar(BTreeMap<String, Part>);

/// ISO 14977, as far as the README goes.
struct Reader<'t>(std::iter::Peekable<std::vec::IntoIter<&'t str>>);

impl Reader<'_> {
    fn any(&mut self) -> Part {
        let mut parts = vec![self.all()];
        while self.0.next_if_eq(&"|").is_some() {
            parts.push(self.all());
        }
        Part::Any(parts)
    }

    fn all(&mut self) -> Part {
        let mut parts = vec![self.one()];
        while self.0.next_if_eq(&",").is_some() {
            parts.push(self.one());
        }
        Part::All(parts)
    }

    fn one(&mut self) -> Part {
        let token = self.0.next().expect("a part");
        let (part, end) = match token {
            "(" => (self.any(), ")"),
            "[" => (Part::Maybe(Box::new(self.any())), "]"),
            "{" => (Part::Often(Box::new(self.any())), "}"),
            word if word.starts_with('"') => return Part::Word(word.trim_matches('"').to_owned()),
            symbol => return Part::Symbol(symbol.to_owned()),
        };
        assert_eq!(self.0.next(), Some(end));
        part
    }
}

impl Grammar {
    fn of_the_readme() -> Self {
        let (_, rest) = README.split_once("```ebnf\n").expect("a grammar");
        let (text, _) = rest.split_once("```").expect("its end");
        let productions = text
            .split(';')
            .filter(|text| !text.trim().is_empty())
            .map(|production| {
                let (name, part) = production.split_once('=').expect("a production");
                let mut tokens = Vec::new();
                let mut rest = part.trim();
                while let Some(first) = rest.chars().next() {
                    let end = match ",|()[]{}".contains(first) {
                        true => 1,
                        false => rest.find([' ', '\n', ',', ')', ']', '}']).unwrap_or(rest.len()),
                    };
                    tokens.push(&rest[..end]);
                    rest = rest[end..].trim_start();
                }
                let mut reader = Reader(tokens.into_iter().peekable());
                let part = reader.any();
                assert_eq!(reader.0.next(), None, "{production}");
                (name.trim().to_owned(), part)
            });
        Self(productions.collect())
    }

    /// Where in `words` a part that begins at `at` may end.
    fn ends(&self, part: &Part, words: &[&str], at: usize) -> Vec<usize> {
        let mut ends = match part {
            Part::Word(word) => words
                .get(at)
                .filter(|other| *other == word)
                .map(|_| at + 1)
                .into_iter()
                .collect(),
            Part::Symbol(symbol) => match self.0.get(symbol) {
                Some(part) => self.ends(part, words, at),
                None if matches!(symbol.as_str(), "text" | "path") => (at + 1..=words.len()).collect(),
                None => words
                    .get(at)
                    .filter(|word| is(symbol, word))
                    .map(|_| at + 1)
                    .into_iter()
                    .collect(),
            },
            Part::All(parts) => parts.iter().fold(vec![at], |ends, part| {
                ends.into_iter().flat_map(|at| self.ends(part, words, at)).collect()
            }),
            Part::Any(parts) => parts.iter().flat_map(|part| self.ends(part, words, at)).collect(),
            Part::Maybe(part) => std::iter::once(at).chain(self.ends(part, words, at)).collect(),
            Part::Often(part) => {
                let (mut all, mut next) = (vec![at], vec![at]);
                while let Some(at) = next.pop() {
                    for end in self.ends(part, words, at) {
                        if !all.contains(&end) {
                            all.push(end);
                            next.push(end);
                        }
                    }
                }
                all
            }
        };
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// Whether the line, which has no comment, is one of these.
    fn has(&self, symbol: &str, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.ends(&self.0[symbol], &words, 0).contains(&words.len())
    }

    /// Words that `part` has, as `choices` has it.
    fn write(&self, part: &Part, choices: &mut impl FnMut(usize) -> usize, to: &mut Vec<String>) {
        match part {
            Part::Word(word) => to.push(word.clone()),
            Part::Symbol(symbol) => match self.0.get(symbol) {
                Some(part) => self.write(part, choices, to),
                None => {
                    let samples = samples(symbol);
                    to.push(samples[choices(samples.len())].to_owned());
                }
            },
            Part::All(parts) => parts.iter().for_each(|part| self.write(part, choices, to)),
            Part::Any(parts) => self.write(&parts[choices(parts.len())], choices, to),
            Part::Maybe(part) => (0..choices(2)).for_each(|_| self.write(part, choices, to)),
            Part::Often(part) => (0..choices(3)).for_each(|_| self.write(part, choices, to)),
        }
    }
}

/// What the README's table says of a symbol, each of which it has.
fn samples(symbol: &str) -> &'static [&'static str] {
    let named = README.lines().any(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        cells.len() > 2 && cells[1].contains(&format!("`{symbol}`"))
    });
    assert!(named, "the README does not say what `{symbol}` is");
    match symbol {
        "network" => &[
            "192.0.2.0/24",
            "/ip4/198.51.100.0/ipcidr/24",
            "/ip6/fc00::/ipcidr/7",
            "2001:db8::/32",
        ],
        "networks" => &[
            "192.0.2.0/24",
            "192.0.2.0-192.0.2.130",
            "2001:db8::1-2001:db8::9",
            "192.0.2.7",
        ],
        "ip" => &["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.8"],
        "peer" => &[
            "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        ],
        "multiaddr" => &["/ip4/0.0.0.0/tcp/4001", "/ip6/::/udp/4001/quic-v1"],
        "ports" => &["4001", "4001-4010", "0", "65535"],
        "count" => &["0", "16", "4294967295"],
        "burst" => &["1", "4294967295"],
        "length" => &["0", "24", "32"],
        "interval" => &["5s", "200ms", "50us", "86400s"],
        "time" => &["2027-01-31T00:00:00Z", "2050-12-31T23:59:59Z"],
        "name" => &["us", "a.b_c-1"],
        "text" => &["spam", "room #4 # and more"],
        "path" => &["level1.netset", "a list.txt"],
        other => panic!("`{other}` is no production"),
    }
}

fn is(symbol: &str, word: &str) -> bool {
    let number = |least: u32, most: u32| word.parse().is_ok_and(|number| (least..=most).contains(&number));
    let both = |of: fn(&str) -> bool| word.split_once('-').is_some_and(|(first, last)| of(first) && of(last));
    match symbol {
        "network" => word.parse::<Cidr>().is_ok(),
        "networks" => word.parse::<Cidr>().is_ok() || both(|ip| ip.parse::<IpAddr>().is_ok()),
        "ip" => word.parse::<IpAddr>().is_ok(),
        "peer" => word.parse::<PeerId>().is_ok(),
        "multiaddr" => word.parse::<libp2p_core::Multiaddr>().is_ok(),
        "ports" => word.parse::<u16>().is_ok() || both(|port| port.parse::<u16>().is_ok()),
        "count" => number(0, u32::MAX),
        "burst" => number(1, u32::MAX),
        "length" => number(0, 128),
        "interval" => {
            ["us", "ms", "s"].iter().any(|unit| word.ends_with(unit)) && word.starts_with(|c: char| c.is_ascii_digit())
        }
        "time" => word.ends_with('Z') && word.contains('T'),
        "name" => word.len() <= 64 && word.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c)),
        other => panic!("`{other}` is no production"),
    }
}

/// What a line says of itself that no grammar of one line can: the list's file, what stands twice,
/// and what is in the wrong order.
fn beyond_the_grammar(error: &FileError) -> bool {
    match error {
        FileError::Line { error, .. } => match error {
            LineError::Twice(_) | LineError::Nothing | LineError::Rule(RuleError::Ports { .. }) => true,
            LineError::Field { word, .. } => word == "everything",
            _ => false,
        },
        FileError::Import { error, .. } => matches!(
            &**error,
            FileError::List {
                error: ListError::Entry { .. } | ListError::Json { .. } | ListError::Empty { .. },
                ..
            }
        ),
        _ => false,
    }
}

/// The rules of `line`, behind a set and a list of every name.
fn load(directory: &Path, line: &str) -> Result<Rules, FileError> {
    let path = directory.join("rules");
    let mut text = "libp2p-gater rules 1\n".to_owned();
    let first = line.split_whitespace().next().unwrap_or_default();
    for name in samples("name") {
        match first {
            "member" => text += &format!("set {name} member\n"),
            "range" => text += &format!("list {name} blocked\n"),
            _ => {}
        }
    }
    std::fs::write(&path, text + line + "\n").expect("written");
    Rules::load(&path)
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for path in samples("path") {
        std::fs::write(directory.path().join(path), "192.0.2.0/24\n").expect("written");
    }
    directory
}

#[test]
fn every_line_that_the_grammar_has_is_read() {
    let (grammar, directory) = (Grammar::of_the_readme(), directory());
    let mut read: BTreeMap<&str, u32> = BTreeMap::new();
    let Part::Any(statements) = &grammar.0["line"] else {
        panic!("a line is one of several statements");
    };
    for statement in statements {
        let Part::All(parts) = statement else {
            panic!("{statement:?}")
        };
        let [Part::Symbol(name)] = &parts[..] else {
            panic!("{parts:?}")
        };
        // The same choices each time.
        for seed in 0..120_u64 {
            let mut left = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut choose = |of: usize| {
                left = left
                    .rotate_left(7)
                    .wrapping_mul(0xd134_2543_de82_ef95)
                    .wrapping_add(seed);
                usize::try_from((left >> 33) % of as u64).expect("small")
            };
            let mut words = Vec::new();
            grammar.write(statement, &mut choose, &mut words);
            let line = words.join(" ");
            assert!(grammar.has("line", &line), "{line}");
            match load(directory.path(), &line) {
                Ok(_) => *read.entry(name).or_default() += 1,
                Err(error) => assert!(beyond_the_grammar(&error), "{line}: {error}"),
            }
        }
        let count = read.get(name.as_str()).copied().unwrap_or_default();
        assert!(count >= 30, "{name}: {count} of 120");
    }
}

#[test]
fn every_line_that_is_written_is_one_of_the_grammar() {
    let (grammar, directory) = (Grammar::of_the_readme(), directory());
    let path = directory.path().join("rules");
    let rules = Rules::new();
    everything(&rules);
    let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|network| network.parse::<Cidr>().expect("a range"));
    rules
        .change(|change| change.list("ours", libp2p_gater::Standing::Allowed, networks.into_iter().collect()))
        .expect("changed");
    let list = directory.path().join("level1.netset");
    rules
        .import("level1", libp2p_gater::Standing::Blocked, list, None)
        .expect("imported");
    rules.save(&path).expect("saved");
    let text = std::fs::read_to_string(&path).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let [header, lines @ .., end] = &lines[..] else {
        panic!("{text}")
    };
    assert!(grammar.has("header", header) && grammar.has("end", end), "{text}");
    for line in lines {
        assert!(grammar.has("line", line), "{line}");
    }
    let statements = [
        "list ours",
        "range ours",
        "import level1",
        "member validators",
        "rate",
        "cap",
    ];
    for statement in statements {
        assert!(
            lines.iter().any(|line| line.starts_with(statement)),
            "{statement}: {text}"
        );
    }
}

/// A line of the grammar, with words put out, in, or in another's place.
fn lines() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "allow",
        "block",
        "peer",
        "network",
        "ip",
        "port",
        "until",
        "everything",
        "note",
        "set",
        "us",
        "member",
        "allowed",
        "blocked",
        "list",
        "range",
        "import",
        "detect",
        "cap",
        "total",
        "5",
        "24",
        "v4",
        "v6",
        "rate",
        "inbound",
        "one-per",
        "5s",
        "burst",
        "end",
        "admit",
        "members",
        "192.0.2.0/24",
        "192.0.2.7",
        "#",
        "x",
    ]);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, words), 0..3);
    (any::<u64>(), edits).prop_map(|(seed, edits)| {
        let grammar = Grammar::of_the_readme();
        let mut left = seed;
        let mut choose = |of: usize| {
            left = left.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(0x9e37_79b9);
            usize::try_from((left >> 33) % of as u64).expect("small")
        };
        let mut line = Vec::new();
        grammar.write(&grammar.0["line"], &mut choose, &mut line);
        for (index, edit, word) in edits {
            let at = index.index(line.len() + 1);
            match edit {
                0 => line.insert(at, word.to_owned()),
                _ if at == line.len() => {}
                1 => line[at] = word.to_owned(),
                _ => drop(line.remove(at)),
            }
        }
        line.join(" ")
    })
}

proptest! {
    /// And what is not of the grammar is not read.
    #[test]
    fn a_line_that_is_read_is_one_of_the_grammar(line in lines()) {
        let (grammar, directory) = (Grammar::of_the_readme(), directory());
        let read = load(directory.path(), &line);
        // Outside of a note.
        let words: Vec<&str> = line.split_whitespace().collect();
        let note = words.iter().position(|word| *word == "note").unwrap_or(words.len());
        let comment = words.iter().position(|word| word.starts_with('#')).filter(|at| *at < note);
        let line = words[..comment.unwrap_or(words.len())].join(" ");
        let of_it = line.is_empty() || grammar.has("line", &line) || grammar.has("end", &line);
        match read {
            Ok(_) => prop_assert!(of_it, "read: {}", line),
            Err(error) if of_it => prop_assert!(beyond_the_grammar(&error) || named(&error), "refused: {}: {}", line, error),
            Err(_) => {}
        }
    }
}

/// Of a set or list that the file has not, a path that is not there, a length of another family.
fn named(error: &FileError) -> bool {
    match error {
        FileError::Import { .. } => true,
        FileError::Line { error, .. } => matches!(error, LineError::Value { .. } | LineError::Network { .. }),
        _ => false,
    }
}
