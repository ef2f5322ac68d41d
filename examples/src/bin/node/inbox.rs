//! Where received files go: `<dir>/<peer>/<name>`, whatever the sender calls them, and never over an existing file.

use crate::swarm::short;
use crate::transfer::Error;
use libp2p::PeerId;
use std::io;
use std::path::{Path, PathBuf};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Files that may arrive at once.
const AT_ONCE: usize = 4;
/// Longest name that is kept, in bytes: leaves room for a number and an ending below the 255 of most file systems.
const MAX_NAME: usize = 120;
/// Files of the same name that are told apart by a number. Beyond it, somebody is playing a game.
const MAX_NUMBER: u32 = 1000;

#[derive(Debug)]
pub(crate) struct Inbox {
    dir: PathBuf,
    limit: u64,
    slots: Semaphore,
}

impl Inbox {
    /// Files of up to `limit` bytes each go below `dir`, which need not exist yet.
    pub(crate) fn new(dir: PathBuf, limit: u64) -> Self {
        let slots = Semaphore::new(AT_ONCE);
        Self { dir, limit, slots }
    }

    /// A slot for a file of `size` bytes, or why there is none.
    pub(crate) fn admit(&self, size: u64) -> Result<SemaphorePermit<'_>, Error> {
        if size > self.limit {
            return Err(Error::TooLarge {
                size,
                limit: self.limit,
            });
        }
        self.slots.try_acquire().map_err(|_| Error::Busy(AT_ONCE))
    }

    /// Opens a file to write to. It has a name of its own until it is complete.
    pub(crate) async fn create(&self, peer: &PeerId, name: &str) -> Result<Partial, Error> {
        let dir = self.dir.join(short(peer));
        fs::create_dir_all(&dir).await.map_err(Error::file(&dir))?;
        let name = sanitised(name);
        let (file, path) = create_new(&dir, &format!("{name}.part")).await?;
        Ok(Partial {
            file,
            path,
            dir,
            name,
            kept: false,
        })
    }
}

/// A file that is still arriving. Dropped before [`Partial::keep`], it is removed.
#[derive(Debug)]
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    dir: PathBuf,
    name: String,
    kept: bool,
}

impl Partial {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).await.map_err(Error::file(&self.path))
    }

    /// Gives the file its name, or that name with a number if it is taken.
    pub(crate) async fn keep(mut self) -> Result<PathBuf, Error> {
        self.file.sync_all().await.map_err(Error::file(&self.path))?;
        // An empty file, created because there was none, reserves the name: what is replaced below is ours.
        let (_, path) = create_new(&self.dir, &self.name).await?;
        if let Err(error) = fs::rename(&self.path, &path).await {
            let _ = fs::remove_file(&path).await;
            return Err(Error::file(&path)(error));
        }
        self.kept = true;
        Ok(path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing can be done about a failure here, and the error that led here is the one to report.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Creates `name` in `dir`, or `name` with a number before its ending. Never opens what exists, nor follows a link.
async fn create_new(dir: &Path, name: &str) -> Result<(File, PathBuf), Error> {
    let (stem, ending) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    };
    let (mut path, mut number) = (dir.join(name), 0_u32);
    loop {
        match OpenOptions::new().write(true).create_new(true).open(&path).await {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MAX_NUMBER => {
                number += 1;
                path = dir.join(format!("{stem}-{number}{ending}"));
            }
            Err(error) => return Err(Error::file(&path)(error)),
        }
    }
}

/// Makes one harmless path component of what a stranger calls a file.
fn sanitised(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut clean: String = last
        .chars()
        // Letters of every script pass; what drives terminals, shells, Windows or the direction of writing does not.
        .map(|c| {
            if c.is_alphanumeric() || " ._-+()[]".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    while clean.len() > MAX_NAME {
        clean.pop();
    }
    // Neither `..` nor a hidden file, and Windows drops dots and spaces at the end.
    let clean = clean.trim_start_matches(['.', ' ', '-']).trim_end_matches(['.', ' ']);
    let stem = clean.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4 && (stem.starts_with("COM") || stem.starts_with("LPT")));
    match clean {
        "" => "unnamed".into(),
        _ if device => format!("_{clean}"),
        _ => clean.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for (sent, kept) in [
            ("photo.jpg", "photo.jpg"),
            ("../../etc/passwd", "passwd"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("C:\\x:y", "x_y"),
            ("..", "unnamed"),
            ("", "unnamed"),
            ("a/", "unnamed"),
            (".ssh", "ssh"),
            ("-rf", "rf"),
            ("nul.txt", "_nul.txt"),
            ("a\0b\n\u{1b}[31m\u{202e}gpj.exe", "a_b__[31m_gpj.exe"),
            ("größe 2.txt", "größe 2.txt"),
        ] {
            assert_eq!(sanitised(sent), kept, "{sent:?}");
        }
        assert!(sanitised(&"ü".repeat(1000)).len() <= MAX_NAME);
    }

    #[tokio::test]
    async fn a_taken_name_gets_a_number_and_a_broken_file_is_removed() {
        let dir = std::env::temp_dir().join(format!("inbox-{}", std::process::id()));
        let (inbox, peer) = (Inbox::new(dir.clone(), 10), PeerId::random());
        for expected in ["a.txt", "a-1.txt", "a-2.txt"] {
            let mut partial = inbox.create(&peer, "a.txt").await.unwrap();
            partial.write(expected.as_bytes()).await.unwrap();
            let path = partial.keep().await.unwrap();
            assert_eq!(path.file_name().unwrap(), expected);
            assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
        }
        drop(inbox.create(&peer, "b.txt").await.unwrap());
        assert_eq!(std::fs::read_dir(dir.join(short(&peer))).unwrap().count(), 3);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn size_and_number_are_bounded() {
        let inbox = Inbox::new("unused".into(), 10);
        assert!(matches!(inbox.admit(11), Err(Error::TooLarge { size: 11, limit: 10 })));
        let held: Vec<_> = (0..AT_ONCE).map(|_| inbox.admit(10).unwrap()).collect();
        assert!(matches!(inbox.admit(1), Err(Error::Busy(_))));
        drop(held);
        assert!(inbox.admit(1).is_ok());
    }
}
