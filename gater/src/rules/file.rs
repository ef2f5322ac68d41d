//! Rules in a file: one statement a line, replaced as a whole.
//!
//! A file is written beside the one it replaces, made durable, and renamed over it; then the
//! directory is made durable. Whoever reads finds the old file or the new one, whenever the writer
//! was killed. What a killed writer leaves behind (`.<name>.<process>-<n>.new`) is removed when the
//! rules are next loaded. Before it is renamed the old one is read: what was edited meanwhile is
//! not replaced.

mod known;
mod write;

pub use known::Edits;
pub(super) use known::Files;

use super::change::{Change, RuleError};
use super::limits::{Caps, Rate};
use super::rule::Rule;
use super::sets::{Admission, Member, Standing};
use super::snapshot::Snapshot;
use super::text::{LineError, Words};
use super::{Kept, Rules};
use known::{Hashing, Print};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

const HEADER: &str = "libp2p-gater rules 1";
/// In bytes.
pub(super) const LONGEST_LINE: usize = 4096;

/// A file of rules that cannot be read, or cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system said no. What was there is still there.
    #[error("{}: cannot {what}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said no to: `open it`, `read it`, `write it`, …
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A line cannot be understood. The file is left as it is, and so are the rules.
    #[error("{}, line {line}: {error}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        error: LineError,
    },
    /// It says something else than what these rules last read from it or wrote to it: it has been
    /// edited, or another program has written it. The file is left as it is, and so are the rules.
    /// [`Rules::reload`] takes what it says, [`Rules::overwrite`] does not.
    #[error("{}: was changed since it was last read or written: {edits}", path.display())]
    Edited {
        /// Which file.
        path: PathBuf,
        /// What it says now that it did not say, and the other way round.
        edits: Edits,
    },
    /// Every line can be understood, and all together are too much. Or the closure of a change of
    /// the same rules has asked for it.
    #[error("{}: {error}", path.display())]
    Rules {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: RuleError,
    },
}

/// Why a change was not made that was to be kept in a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The file was not replaced.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is something that can be no rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl Rules {
    /// The rules in the file at `path`.
    ///
    /// ```
    /// use libp2p_gater::{Cidr, Rules, SaveError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("rules");
    /// let rules = Rules::new();
    /// let range: Cidr = "192.0.2.0/24".parse()?;
    /// rules.change_and_save(&path, |change| Ok::<_, SaveError>(change.block(range)?))?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "libp2p-gater rules 1\nblock network 192.0.2.0/24\nend\n");
    /// assert_eq!(Rules::load(&path)?.list(), rules.list());
    /// # Ok(()) }
    /// ```
    ///
    /// What a killed process has left of a file it was writing is removed. A file belongs to one process at a time: one
    /// that loads while another saves makes the other's saving fail.
    ///
    /// # Errors
    ///
    /// [`FileError`], naming the file and, where that says anything, the line. The file is never touched.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let rules = Self::new();
        rules.reload(path)?;
        Ok(rules)
    }

    /// Replaces all rules with those in the file at `path`, in one step.
    ///
    /// # Errors
    ///
    /// As [`Self::load`]; the rules stay what they are then. [`FileError::Rules`] with
    /// [`RuleError::InsideChange`] in the closure of a change.
    pub fn reload(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let (path, now) = (path.as_ref(), self.0.seconds());
        let print = std::cell::Cell::new(None);
        let result = self.change_and(
            now,
            |change| {
                change.clear();
                print.set(Some(read(path, change).map_err(Failed::File)?));
                Ok(())
            },
            |kept: Kept<'_>| {
                if let Some(print) = print.get() {
                    kept.files.remember(write::target(path), print, kept.next);
                }
                Ok(())
            },
        );
        result.map_err(|failed: Failed| failed.at(path))?;
        write::remove_leftovers(path);
        Ok(())
    }

    /// Writes the rules into the file at `path`, in place of what these rules last read from it or
    /// wrote to it. A symbolic link stays one, and the file's owner and permissions stay what they
    /// are. Comments do not outlive it, nor does the order of lines.
    ///
    /// Blocks: two to three seconds for a million entries, and as long as the disk takes to make them durable.
    ///
    /// # Errors
    ///
    /// [`FileError::Edited`] if the file says anything else by now, or, for a file that these rules
    /// have never read or written, anything that they do not say. [`FileError::Line`] if it is no
    /// file of rules. [`FileError::Io`]. What was there is still there. Not a disk that fails when
    /// the file has been replaced and its directory is made durable: the new file is there, and a
    /// crash of the machine may bring the old one back. That is logged, at the level of warnings.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        self.write(path.as_ref(), true)
    }

    /// The same, whatever is there.
    ///
    /// # Errors
    ///
    /// [`FileError::Io`], as for [`Self::save`].
    pub fn overwrite(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        self.write(path.as_ref(), false)
    }

    fn write(&self, path: &Path, check: bool) -> Result<(), FileError> {
        let now = self.0.seconds();
        // In a turn of its own, or an older state could be renamed over a newer one.
        let turn = self.0.turns.take();
        let mut turn = turn.map_err(|inside| Failed::Rule(inside.into()).at(path))?;
        let current = self.0.current.load();
        let checked = check.then_some(&**current);
        turn.files.replace(path, checked, &current, now)
    }

    /// [`Self::change`], kept in the file at `path` before any decision sees it: both are changed,
    /// or neither is. All of the file is written, as by [`Self::save`]; other changes wait for it,
    /// decisions do not.
    ///
    /// # Errors
    ///
    /// Those of `change`, of [`Self::change`] and of [`Self::save`].
    ///
    /// # Panics
    ///
    /// As [`Self::change`]; the file is as it was, too.
    pub fn change_and_save<T, E: From<RuleError> + From<FileError>>(
        &self,
        path: impl AsRef<Path>,
        change: impl FnOnce(&mut Change) -> Result<T, E>,
    ) -> Result<T, E> {
        let now = self.0.seconds();
        self.change_and(now, change, |kept| {
            Ok(kept.files.replace(path.as_ref(), Some(kept.before), kept.next, now)?)
        })
    }
}

enum Failed {
    File(FileError),
    Rule(RuleError),
}

impl Failed {
    fn at(self, path: &Path) -> FileError {
        match self {
            Self::File(error) => error,
            Self::Rule(error) => FileError::Rules {
                path: path.to_owned(),
                error,
            },
        }
    }
}

impl From<RuleError> for Failed {
    fn from(error: RuleError) -> Self {
        Self::Rule(error)
    }
}

/// What applies to the whole, and is put together at the end.
#[derive(Default)]
struct Whole {
    caps: Caps,
    rates: Vec<Rate>,
    sets: BTreeMap<String, (Standing, Vec<Member>)>,
    admission: Option<Admission>,
}

/// The rules in the file at `path`, at the second `now`.
fn rules_in(path: &Path, now: u64) -> Result<Snapshot, FileError> {
    let mut change = Change::of(Snapshot::default(), now);
    read(path, &mut change)?;
    let done = change.finish().map_err(|error| Failed::Rule(error).at(path))?;
    Ok(done.next)
}

fn read(path: &Path, change: &mut Change) -> Result<Print, FileError> {
    let io = |what| {
        move |source| FileError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    let mut hashing = Hashing::new(File::open(path).map_err(io("open it"))?);
    let mut file = BufReader::with_capacity(1 << 16, &mut hashing);
    let mut whole = Whole::default();
    let mut bytes = Vec::new();
    let mut line = 0;
    let mut ended = false;
    loop {
        bytes.clear();
        let read = file
            .by_ref()
            .take(LONGEST_LINE as u64 + 1)
            .read_until(b'\n', &mut bytes);
        if read.map_err(io("read it"))? == 0 {
            break;
        }
        line += 1;
        let result = match bytes.strip_suffix(b"\n") {
            Some(text) => statement(text, line, &mut ended, change, &mut whole),
            None if bytes.len() > LONGEST_LINE => Err(LineError::NotText),
            None => statement(&bytes, line, &mut ended, change, &mut whole),
        };
        result.map_err(|error| at(path, line, error))?;
    }
    if !ended {
        let error = if line == 0 { LineError::Header } else { LineError::NoEnd };
        return Err(at(path, line.max(1), error));
    }
    // What is left cannot fail for a reason that a line would explain better than `end`.
    whole.apply(change).map_err(|error| at(path, line, error.into()))?;
    Ok(hashing.print())
}

fn at(path: &Path, line: usize, error: LineError) -> FileError {
    FileError::Line {
        path: path.to_owned(),
        line,
        error,
    }
}

fn statement(
    bytes: &[u8],
    line: usize,
    ended: &mut bool,
    change: &mut Change,
    whole: &mut Whole,
) -> Result<(), LineError> {
    let text = std::str::from_utf8(bytes).map_err(|_| LineError::NotText)?.trim();
    if line == 1 {
        return header(text);
    }
    if text.is_empty() || text.starts_with('#') {
        return Ok(());
    }
    if *ended {
        return Err(LineError::BehindEnd);
    }
    let mut words = Words::of(text);
    let rule = match words.next().unwrap_or_default() {
        "allow" => words.rule(Rule::allow())?,
        "block" => words.rule(Rule::block())?,
        "end" => {
            *ended = true;
            return words.end();
        }
        other => {
            whole.statement(other, &mut words, change)?;
            return words.end();
        }
    };
    Ok(change.insert_read(rule)?)
}

fn header(text: &str) -> Result<(), LineError> {
    if text == HEADER {
        return Ok(());
    }
    let version = text
        .strip_prefix("libp2p-gater rules ")
        .and_then(|version| version.parse().ok());
    match version {
        Some(found) if found > 1 => Err(LineError::Newer { found }),
        _ => Err(LineError::Header),
    }
}

impl Whole {
    fn statement(&mut self, word: &str, words: &mut Words<'_>, change: &mut Change) -> Result<(), LineError> {
        match word {
            "require-knock" => match words.next() {
                Some("everybody") => change.require_knock_of_everybody(true),
                Some("peer") => change.require_knock(words.peer()?, true)?,
                Some(other) => return Err(LineError::Field(other.to_owned())),
                None => return Err(LineError::Missing("require-knock")),
            },
            "refuse-names" => change.refuse_names(true),
            "admit" => {
                let value = words.next().ok_or(LineError::Missing("admit"))?;
                let all = [Admission::Everyone, Admission::Members, Admission::KnownAddresses];
                let Some(admission) = all.into_iter().find(|one| one.name() == value) else {
                    return Err(LineError::Field(value.to_owned()));
                };
                if self.admission.replace(admission).is_some() {
                    return Err(LineError::Twice("admit"));
                }
            }
            "cap" => words.cap(&mut self.caps)?,
            "rate" => self.rates.push(words.rate()?),
            "set" => {
                let name = words.next().ok_or(LineError::Missing("set"))?;
                let standing = words.next().ok_or(LineError::Missing("set"))?;
                let all = [Standing::Allowed, Standing::Blocked, Standing::Member];
                let Some(standing) = all.into_iter().find(|one| one.name() == standing) else {
                    return Err(LineError::Field(standing.to_owned()));
                };
                if self.sets.contains_key(name) {
                    return Err(LineError::Twice("set"));
                }
                // The name is looked at here, where its line is known.
                change.set(name, standing, std::iter::empty::<Member>())?;
                self.sets.insert(name.to_owned(), (standing, Vec::new()));
            }
            "member" => {
                let name = words.next().ok_or(LineError::Missing("member"))?;
                let Some((_, members)) = self.sets.get_mut(name) else {
                    return Err(LineError::Value {
                        value: name.to_owned(),
                        wanted: "set of this file",
                    });
                };
                let peer = words.peer()?;
                super::key::PeerKey::of(&peer).ok_or(RuleError::NoSuchPeer(peer))?;
                let mut ips = Vec::new();
                while let Some(word) = words.next() {
                    ips.push(word.parse().map_err(|_| LineError::Field(word.to_owned()))?);
                }
                members.push(Member::at(peer, ips));
            }
            other => return Err(LineError::Statement(other.to_owned())),
        }
        Ok(())
    }

    fn apply(self, change: &mut Change) -> Result<(), RuleError> {
        change.caps(self.caps);
        change.rates(self.rates)?;
        change.admit(self.admission.unwrap_or_default());
        for (name, (standing, members)) in self.sets {
            change.set(&name, standing, members)?;
        }
        Ok(())
    }
}
