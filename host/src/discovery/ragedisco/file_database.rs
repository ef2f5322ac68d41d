//! The database as one text file.
//!
//! ```text
//! ragedisco announcements 1
//! 12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5 0a0e3132372e30…
//! end 1
//! ```

mod replace;

use super::announcement::{Announcement, AnnouncementError};
use super::database::{Database, DatabaseError};
use libp2p_identity::PeerId;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const HEADER: &str = "ragedisco announcements 1";

/// Announcements in a text file, a line for each peer. Only one process may use a file at a time.
///
/// Every change writes a new file beside it, syncs that, puts it in place of the old one and syncs the directory: after a crash there
/// is the old file or the new one, whole. What has not changed is not written. Everything is also in memory, some 900 bytes a peer.
/// Peers are never deleted.
///
/// The path may be a symbolic link, which stays one: what it leads to is replaced, in its own
/// directory, which has to be writable. A new file has mode 0600. An old one keeps its mode, and
/// its owner and group where the system lets the process give it to them; if the group cannot stay,
/// the process's own may do what everybody may. Anything but a regular file is refused.
#[derive(Debug)]
pub struct FileDatabase {
    path: PathBuf,
    announcements: Mutex<BTreeMap<PeerId, Vec<u8>>>,
}

/// What is wrong with a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The first line is not that of such a file, or of a later version of it.
    #[error("not a file of announcements that this version can read")]
    Header,
    /// Not a peer id, a space and hexadecimal digits.
    #[error("not a peer id and an announcement")]
    Line,
    /// What the digits say is not an announcement.
    #[error("not an announcement: {0}")]
    Announcement(#[from] AnnouncementError),
    /// The announcement of one peer under the id of another.
    #[error("the announcement is that of {0}")]
    Peer(PeerId),
    /// A second line for the same peer.
    #[error("the peer has a line already")]
    Twice,
    /// The last line does not say how many there are: part of the file is missing, or something was added.
    #[error("the file must end with \"end {0}\", the number of its announcements")]
    End(usize),
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileDatabaseError {
    /// It cannot be read or written.
    #[error("{} {}", action, path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
    /// It is damaged. Nothing was changed: it may be repaired by hand, or moved away, which costs nothing but the time that it
    /// takes to hear everything again.
    #[error("{} line {line}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
}

impl FileDatabase {
    /// Opens a file, or takes note to make one when there is something to write. Its directory must
    /// exist. Removes what a process has left that was killed while it wrote,
    /// `.<name>.<process>-<number>.new`.
    ///
    /// Every signature in it is verified, some 50 µs each.
    ///
    /// # Errors
    ///
    /// When there is one that cannot be read, or that is damaged.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileDatabaseError> {
        let path = path.into();
        replace::remove_leftovers(&path);
        let announcements = match std::fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|(line, damage)| FileDatabaseError::Damaged {
                path: path.clone(),
                line,
                damage,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => {
                return Err(FileDatabaseError::Io {
                    action: "cannot read",
                    path,
                    source,
                });
            }
        };
        Ok(Self {
            path,
            announcements: Mutex::new(announcements),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Vec<u8>>> {
        self.announcements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database for FileDatabase {
    fn store(&self, announcements: &[(PeerId, Vec<u8>)]) -> Result<(), DatabaseError> {
        let mut known = self.lock();
        let mut after = known.clone();
        after.extend(announcements.iter().cloned());
        if after != *known {
            replace::replace(&self.path, render(&after).as_bytes())?;
            *known = after;
        }
        Ok(())
    }

    fn read(&self, peers: &[PeerId]) -> Result<Vec<(PeerId, Vec<u8>)>, DatabaseError> {
        let known = self.lock();
        Ok(peers
            .iter()
            .filter_map(|peer| Some((*peer, known.get(peer)?.clone())))
            .collect())
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<PeerId, Vec<u8>>, (usize, Damage)> {
    let mut found = BTreeMap::new();
    let mut lines = bytes.split(|byte| *byte == b'\n').zip(1..);
    if lines.next().is_none_or(|(line, _)| line != HEADER.as_bytes()) {
        return Err((1, Damage::Header));
    }
    let mut last = 1;
    for (line, number) in lines.by_ref() {
        last = number;
        if line == format!("end {}", found.len()).as_bytes() {
            // Behind the last line there is nothing but its end.
            return match (lines.next(), lines.next()) {
                (Some((b"", _)), None) => Ok(found),
                (Some((_, number)), _) => Err((number, Damage::End(found.len()))),
                (None, _) => Err((number, Damage::End(found.len()))),
            };
        }
        if line.is_empty() || line.starts_with(b"end ") {
            return Err((number, Damage::End(found.len())));
        }
        let (peer, announcement) = entry(line).map_err(|damage| (number, damage))?;
        if found.insert(peer, announcement).is_some() {
            return Err((number, Damage::Twice));
        }
    }
    Err((last + 1, Damage::End(found.len())))
}

fn entry(line: &[u8]) -> Result<(PeerId, Vec<u8>), Damage> {
    let line = std::str::from_utf8(line).map_err(|_| Damage::Line)?;
    let (peer, digits) = line.split_once(' ').ok_or(Damage::Line)?;
    let peer = peer.parse::<PeerId>().map_err(|_| Damage::Line)?;
    let bytes = hex::decode(digits).map_err(|_| Damage::Line)?;
    let announcement = Announcement::decode(&bytes)?;
    announcement.verify()?;
    if announcement.peer() != peer {
        return Err(Damage::Peer(announcement.peer()));
    }
    Ok((peer, bytes))
}

fn render(announcements: &BTreeMap<PeerId, Vec<u8>>) -> String {
    let mut text = format!("{HEADER}\n");
    for (peer, announcement) in announcements {
        let _ = writeln!(text, "{peer} {}", hex::encode(announcement));
    }
    let _ = writeln!(text, "end {}", announcements.len());
    text
}

#[cfg(test)]
mod tests;
