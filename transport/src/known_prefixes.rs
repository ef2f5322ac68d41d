//! The prefixes from which peers have authenticated lately, and the file that keeps them over a
//! restart.

use crate::clock::Clock;
use crate::config::Config;
use crate::replace;
use crate::silence::known::KnownPrefixes;
use crate::silence::known::text::{self, Damage};
use crate::silence::prefix::Prefix;
use crate::timer::Deadline;
use futures::future::FutureExt as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use web_time::Instant;

/// How long a change waits for others before the file is written.
const WAIT: Duration = Duration::from_secs(60);

impl Config {
    /// Keeps the prefixes (IPv4 /24, IPv6 /48) that have authenticated within a day in the file at
    /// `path`. After a restart they are served before strangers again. Default: a restart forgets
    /// them.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), libp2p_knock::ConfigError> {
    /// # let key = libp2p_identity::Keypair::generate_ed25519();
    /// let config = libp2p_knock::Config::new(&key)?.with_known_prefixes_file("node.key.known");
    /// # let _ = config; Ok(()) }
    /// ```
    ///
    /// The file is read here. It holds up to 4,096 prefixes, some 100 kB, and for each the minutes
    /// since a peer authenticated from there. It holds no PeerId and no address. Its mode is 0600,
    /// and each write replaces it as a whole.
    ///
    /// A thread of its own writes it, at most once a minute, and only if a prefix is new in it or
    /// an hour older there than it should be. A process that is killed loses a minute at most. The
    /// last write happens when the last clone of this configuration and the last transport made of
    /// it are dropped; that drop takes as long as the disk does.
    ///
    /// A missing file is made. A damaged file, or one that other users may write to, is not
    /// believed: a warning is logged, and the next write replaces it. A file that cannot be written
    /// is a warning too, and costs nothing else. A wall clock that shows a time before the last
    /// write cannot tell how long ago that was; an hour is assumed.
    ///
    /// All clones share it, also those that were made before. Give each process a file of its own:
    /// of two that write to one file the last one wins.
    pub fn with_known_prefixes_file(self, path: impl Into<PathBuf>) -> Self {
        self.guard.keep_known_prefixes(path.into());
        self
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Known {
    table: Mutex<Table>,
    /// Held while the file is written, so that an older state does not replace a newer one.
    writing: Mutex<()>,
}

struct Table {
    prefixes: KnownPrefixes,
    file: Option<PathBuf>,
    /// The time in the file, in seconds since 1970. A clock that is behind does not make it
    /// earlier.
    written: u64,
    /// Whether the file should say something else than it does.
    changed: bool,
    /// Until the file is written.
    due: Option<Deadline>,
    wait: Duration,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            prefixes: KnownPrefixes::new(),
            file: None,
            written: 0,
            changed: false,
            due: None,
            wait: WAIT,
        }
    }
}

impl Known {
    pub(crate) fn contains(&self, now: Instant, prefix: Prefix) -> bool {
        self.table().prefixes.contains(now, prefix)
    }

    /// A peer has authenticated from there.
    pub(crate) fn authenticated(self: &Arc<Self>, clock: &Clock, prefix: Prefix) {
        let now = clock.now().monotonic;
        let mut table = self.table();
        table.changed |= table.prefixes.on_authenticated(now, prefix);
        if !table.changed || table.file.is_none() || table.due.is_some() {
            return;
        }
        let writer = Waker::from(Arc::new(Writer {
            known: Arc::downgrade(self),
            clock: clock.clone(),
        }));
        let mut due = Deadline::after(table.wait);
        let now = due.poll_unpin(&mut Context::from_waker(&writer)).is_ready();
        table.due = Some(due);
        drop(table);
        if now {
            writer.wake();
        }
    }

    /// Takes in what the file at `path` says, and keeps it there from now on.
    pub(crate) fn keep_at(&self, path: PathBuf, clock: &Clock) {
        let now = clock.now();
        replace::remove_leftovers(&path);
        let (read, shown) = (read(&path), path.display().to_string());
        let mut table = self.table();
        table.file = Some(path);
        let mut behind = false;
        let restored = read.map(|read| {
            let (written, lines) = read?;
            let ago = (now.wall / 1000).checked_sub(written).map(Duration::from_secs);
            table.written = written;
            behind = ago.is_none();
            Some(table.prefixes.restore(now.monotonic, lines, ago))
        });
        table.changed |= behind;
        drop(table);
        match restored {
            Ok(Some(prefixes)) => tracing::debug!(path = shown, prefixes, "known prefixes restored"),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(path = shown, %error, "known prefixes are not restored: peers begin as strangers")
            }
        }
        if behind {
            // Or the next restart would begin with the same.
            self.write(clock);
        }
    }

    /// Writes the file, if it should say something else than it does. Blocks for as long as the
    /// disk takes.
    pub(crate) fn write(&self, clock: &Clock) {
        if !self.is_due() {
            return;
        }
        let now = clock.now();
        let writing = lock(&self.writing);
        let mut table = self.table();
        let Some(path) = table.file.clone().filter(|_| table.changed) else {
            return;
        };
        table.changed = false;
        table.written = table.written.max(now.wall / 1000);
        let (written, lines) = (table.written, table.prefixes.keep(now.monotonic));
        drop(table);
        let replaced = replace::replace(&path, text::encode(written, &lines).as_bytes());
        if replaced.is_err() {
            // To be tried again when the next peer comes in, or at the end.
            self.table().changed = true;
        }
        drop(writing);
        if let Err(error) = replaced {
            let path = path.display();
            tracing::warn!(%path, %error, "known prefixes are not kept: after a restart peers begin as strangers");
        }
    }

    /// Whether there is something to write. Nothing waits for that any more.
    fn is_due(&self) -> bool {
        let mut table = self.table();
        let (due, waited) = (table.changed && table.file.is_some(), table.due.take());
        drop(table);
        drop(waited);
        due
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under either lock panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the file when it is woken, on a thread of its own: the waking thread has others to wake.
struct Writer {
    known: Weak<Known>,
    clock: Clock,
}

impl Wake for Writer {
    fn wake(self: Arc<Self>) {
        let thread = std::thread::Builder::new().name("knock-known".to_owned());
        let writer = self.clone();
        let spawned = thread.spawn(move || {
            if let Some(known) = writer.known.upgrade() {
                known.write(&writer.clock);
            }
        });
        if let Err(error) = spawned
            && let Some(known) = self.known.upgrade()
        {
            drop(known.table().due.take());
            tracing::warn!(%error, "no thread to keep known prefixes");
        }
    }
}

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("not a file")]
    NotAFile,
    #[error("mode {0:04o}: others can write to it, expected 0600")]
    Writable(u32),
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// When it was written, and what it says. `None` if there is no file.
fn read(path: &Path) -> Result<Option<(u64, Vec<text::Line>)>, Unreadable> {
    // First, as to open a pipe is to wait for its other end.
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(Unreadable::NotAFile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let file = File::open(path)?;
    if let Some(mode) = writable_by_others(&file)? {
        return Err(Unreadable::Writable(mode));
    }
    let mut bytes = Vec::new();
    file.take(text::MAX_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(text::decode(&bytes)?))
}

#[cfg(unix)]
fn writable_by_others(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = file.metadata()?.mode() & 0o7777;
    Ok((mode & 0o022 != 0).then_some(mode))
}

#[cfg(not(unix))]
fn writable_by_others(_: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(test)]
mod tests;
