//! Rules in a file: one statement a line, replaced as a whole.
//!
//! A file is written beside the one it replaces, made durable, and renamed over it; then the
//! directory is made durable. Whoever reads finds the old file or the new one, whenever the writer
//! was killed. What a killed writer leaves behind (`.<name>.<process>-<n>.new`) is removed when the
//! rules are next loaded. Before it is renamed the old one is read: what was edited meanwhile is
//! not replaced.

mod error;
mod known;
mod read;
mod statement;
mod write;

pub use error::{FileError, SaveError};
pub use known::Edits;
pub(super) use known::Files;
pub(super) use read::read_list;

use super::change::{Change, RuleError};
use super::snapshot::Snapshot;
use super::{Kept, Rules};
use read::{Lists, read};
use std::path::Path;

/// The first line of a file of rules.
const HEADER: &str = "libp2p-gater rules 1";
/// Behind it in a file that must have an `end`, as every file has that is written here.
const UNTIL_END: &str = "until end";

impl Rules {
    /// The rules in the file at `path`.
    ///
    /// ```
    /// use libp2p_gater::{Cidr, Rules};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("rules");
    /// let rules = Rules::new();
    /// let range: Cidr = "192.0.2.0/24".parse()?;
    /// rules.change_and_save(&path, |change| change.block(range))?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "libp2p-gater rules 1 until end\nblock network 192.0.2.0/24\nend\n");
    /// assert_eq!(Rules::load(&path)?.list(), rules.list());
    /// # Ok(()) }
    /// ```
    ///
    /// What a killed process has left of a file it was writing is removed. A file belongs to one process at a time: one
    /// that loads while another saves makes the other's saving fail.
    ///
    /// # Errors
    ///
    /// [`FileError`], naming the file and, where that says anything, the line. A list that it imports
    /// and that cannot be read is one too. The files are never touched.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let rules = Self::new();
        rules.reload(path)?;
        Ok(rules)
    }

    /// Replaces all rules with those in the file at `path`, and all lists with those in the files that
    /// it imports, in one step.
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
            |change: &mut Change| {
                change.clear();
                print.set(Some(read(path, change, Lists::Read).map_err(Failed::File)?));
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
    pub fn change_and_save<T>(
        &self,
        path: impl AsRef<Path>,
        change: impl FnOnce(&mut Change) -> Result<T, RuleError>,
    ) -> Result<T, SaveError> {
        self.try_change_and_save(path, |next| change(next).map_err(SaveError::Rule))
    }

    /// [`Self::change_and_save`] for a closure with an error of its own.
    ///
    /// # Errors
    ///
    /// As [`Self::change_and_save`].
    ///
    /// # Panics
    ///
    /// As [`Self::change_and_save`].
    pub fn try_change_and_save<T, E: From<RuleError> + From<FileError>>(
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

/// The rules in the file at `path`, at the second `now`. Of lists in other files nothing is read but
/// which files those are.
fn rules_in(path: &Path, now: u64) -> Result<Snapshot, FileError> {
    let mut change = Change::of(Snapshot::default(), now);
    read(path, &mut change, Lists::Name)?;
    let done = change.finish().map_err(|error| Failed::Rule(error).at(path))?;
    Ok(done.next)
}
