//! What a line of a file of rules does.

use crate::rules::change::{Change, RuleError, check_rates};
use crate::rules::cidr::{Cidr, CidrError};
use crate::rules::key::PeerKey;
use crate::rules::limits::{Caps, Rate};
use crate::rules::line::LONGEST_LINE;
use crate::rules::lists::{DETECT, ListFormat, NetworkList, Source, absolute};
use crate::rules::rule::Rule;
use crate::rules::sets::{Admission, Member, Standing};
use crate::rules::snapshot::Snapshot;
use crate::rules::text::{LineError, Words, explained};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What applies to the whole, and is put together at the end.
#[derive(Default)]
pub(super) struct Whole {
    /// The directory of the file.
    base: PathBuf,
    caps: Caps,
    rates: Vec<Rate>,
    sets: BTreeMap<String, (Standing, Vec<Member>)>,
    lists: BTreeMap<String, (Standing, Vec<Cidr>)>,
    /// Each with its line.
    pub(super) imports: Vec<(usize, Import)>,
    admission: Option<Admission>,
}

/// A list that is in a file of its own.
#[derive(Clone)]
pub(super) struct Import {
    pub(super) name: String,
    pub(super) standing: Standing,
    pub(super) source: Source,
}

/// Whether the file goes on behind this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    More,
    End,
}

impl Whole {
    /// Of a file in the directory `base`.
    pub(super) fn new(base: PathBuf) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    /// Does what the line says, which is the `line`th of its file.
    pub(super) fn read(&mut self, text: &str, line: usize, change: &mut Change) -> Result<Then, LineError> {
        self.statement(text, line, change).map_err(|error| {
            explained(text, error, &|text| {
                if text.len() > LONGEST_LINE {
                    return Err(LineError::NotText);
                }
                let stands_behind = |rules: Snapshot| {
                    let mut aside = Change::of(rules, 0);
                    self.names().statement(text, line, &mut aside).map(drop)
                };
                // Most fail the first, which costs less.
                stands_behind(Snapshot::default())?;
                stands_behind(change.next.clone())
            })
        })
    }

    /// The same, with nothing in the sets and the lists.
    fn names(&self) -> Self {
        let empty = |name: &String, standing| (name.clone(), (standing, Vec::new()));
        Self {
            base: self.base.clone(),
            caps: self.caps.clone(),
            rates: self.rates.clone(),
            admission: self.admission,
            imports: self.imports.clone(),
            sets: self.sets.iter().map(|(name, (of, _))| empty(name, *of)).collect(),
            lists: self
                .lists
                .iter()
                .map(|(name, (of, _))| (name.clone(), (*of, Vec::new())))
                .collect(),
        }
    }

    /// A line that cannot be understood changes nothing that [`Self::names`] has.
    fn statement(&mut self, text: &str, line: usize, change: &mut Change) -> Result<Then, LineError> {
        let mut words = Words::of(text);
        let rule = match words.next() {
            // A comment.
            None => return Ok(Then::More),
            Some("allow") => words.rule(Rule::allow())?,
            Some("block") => words.rule(Rule::block())?,
            Some("end") => return words.end().map(|()| Then::End),
            Some(other) => return self.other(other, line, &mut words, change).map(|()| Then::More),
        };
        change.insert_read(rule)?;
        Ok(Then::More)
    }

    fn other(&mut self, word: &str, line: usize, words: &mut Words<'_>, change: &mut Change) -> Result<(), LineError> {
        match word {
            "require-knock" => match words.value("require-knock")? {
                "everybody" => {
                    words.end()?;
                    change.require_knock_of_everybody(true);
                }
                "peer" => {
                    let peer = words.peer()?;
                    words.end()?;
                    change.require_knock(peer, true)?;
                }
                other => return Err(LineError::value(other, "`everybody` or `peer`")),
            },
            "refuse-names" => {
                words.end()?;
                change.refuse_names(true);
            }
            "admit" => {
                let value = words.value("admit")?;
                let all = [Admission::Everyone, Admission::Members, Admission::KnownAddresses];
                let Some(admission) = all.into_iter().find(|one| one.name() == value) else {
                    return Err(LineError::value(value, "`everyone`, `members` or `known-addresses`"));
                };
                words.end()?;
                if self.admission.is_some() {
                    return Err(LineError::Twice("admit"));
                }
                self.admission = Some(admission);
            }
            "cap" => {
                let mut caps = self.caps.clone();
                words.cap(&mut caps)?;
                words.end()?;
                self.caps = caps;
            }
            "rate" => {
                let rate = words.rate()?;
                words.end()?;
                self.rates.push(rate);
                check_rates(&self.rates)?;
            }
            "set" => {
                let name = words.value("set")?;
                let standing = standing(words.value("set")?)?;
                words.end()?;
                if self.sets.contains_key(name) {
                    return Err(LineError::Twice("set"));
                }
                // The name is looked at here, where its line is known.
                change.set(name, standing, std::iter::empty::<Member>())?;
                self.sets.insert(name.to_owned(), (standing, Vec::new()));
            }
            "member" => {
                let name = words.value("member")?;
                let Some((_, members)) = self.sets.get_mut(name) else {
                    return Err(LineError::value(name, "a set of this file"));
                };
                let peer = words.peer()?;
                PeerKey::of(&peer).ok_or(RuleError::NoSuchPeer(peer))?;
                let mut ips = Vec::new();
                while let Some(word) = words.next() {
                    ips.push(word.parse().map_err(|_| LineError::field(word))?);
                }
                members.push(Member::at(peer, ips));
            }
            "list" => {
                let (name, standing) = self.new_list(words)?;
                words.end()?;
                change.list(&name, standing, NetworkList::from_iter([]))?;
                self.lists.insert(name, (standing, Vec::new()));
            }
            "range" => {
                let name = words.value("range")?;
                let Some((_, networks)) = self.lists.get_mut(name) else {
                    return Err(LineError::value(name, "a list of this file that is no import"));
                };
                let first = words.value("range")?;
                for word in std::iter::once(first).chain(std::iter::from_fn(|| words.next())) {
                    put_range(word, networks).map_err(|error| LineError::network(word, error))?;
                }
            }
            "import" => self.import(line, words, change)?,
            other => return Err(LineError::statement(other)),
        }
        Ok(())
    }

    fn new_list(&self, words: &mut Words<'_>) -> Result<(String, Standing), LineError> {
        let name = words.value("list")?;
        let standing = standing(words.value("list")?)?;
        let imported = self.imports.iter().any(|(_, import)| import.name == name);
        match imported || self.lists.contains_key(name) {
            true => Err(LineError::Twice("list")),
            false => Ok((name.to_owned(), standing)),
        }
    }

    fn import(&mut self, line: usize, words: &mut Words<'_>, change: &mut Change) -> Result<(), LineError> {
        const FORMAT: &str = "a format: detect, plain, json-lines, kubo, p2p or emule";
        let (name, standing) = self.new_list(words)?;
        let format = match words.value("import")? {
            DETECT => None,
            other => Some(ListFormat::named(other).ok_or_else(|| LineError::value(other, FORMAT))?),
        };
        let written = words.rest("import")?;
        let source = Source {
            path: absolute(&self.base.join(written)),
            written: written.to_owned(),
            format,
            print: None,
        };
        change.list(&name, standing, NetworkList::unread(source.clone()))?;
        self.imports.push((line, Import { name, standing, source }));
        Ok(())
    }

    /// All but the imports.
    pub(super) fn apply(self, change: &mut Change) -> Result<(), RuleError> {
        change.caps(self.caps);
        change.rates(self.rates)?;
        change.admit(self.admission.unwrap_or_default());
        for (name, (standing, members)) in self.sets {
            change.set(&name, standing, members)?;
        }
        for (name, (standing, networks)) in self.lists {
            change.list(&name, standing, networks.into_iter().collect())?;
        }
        Ok(())
    }
}

fn standing(word: &str) -> Result<Standing, LineError> {
    let all = [Standing::Allowed, Standing::Blocked, Standing::Member];
    let found = all.into_iter().find(|one| one.name() == word);
    found.ok_or_else(|| LineError::value(word, "`allowed`, `blocked` or `member`"))
}

/// A network, or a first and a last address with a hyphen between them.
fn put_range(word: &str, networks: &mut Vec<Cidr>) -> Result<(), CidrError> {
    match word.split_once('-') {
        Some((first, last)) => {
            let ip = |text: &str| text.parse().map_err(|_| CidrError::Address);
            networks.extend(Cidr::covering(ip(first)?, ip(last)?)?);
        }
        None => networks.push(word.parse()?),
    }
    Ok(())
}

/// The directory to which the paths in the file at `path` are relative.
pub(super) fn base(path: &Path) -> PathBuf {
    absolute(path.parent().unwrap_or_else(|| Path::new("")))
}
