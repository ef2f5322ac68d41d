//! A small disk for each node, and a clock.

use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The kernel's unit for a tmpfs.
const PAGE: usize = 4096;
/// Some ten thousand rules.
const SIZE: &str = "size=256k,nr_inodes=64";
const BALLAST: &str = "ballast";

/// A tmpfs of its own. Dropping it unmounts it.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    /// What keeps it full, for as long as the flag says so.
    hungry: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Disk {
    pub(crate) fn mount(path: &Path) -> Result<Self> {
        fs::create_dir(path).with_context(|| format!("{}", path.display()))?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(path))?;
        Ok(Self {
            path: path.to_owned(),
            hungry: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it to the last byte and gives back so many pages. If that is none, it stays full: each
    /// page that becomes free is taken at once, as by a program that writes a log.
    pub(crate) fn fill(&mut self, spare: usize) -> Result<()> {
        let mut ballast = File::create(self.path.join(BALLAST)).context("the ballast")?;
        let written = to_the_last_byte(&mut ballast)?;
        if spare > 0 {
            let left = written.saturating_sub(spare * PAGE);
            return ballast.set_len(u64::try_from(left)?).context("giving back");
        }
        let full = Arc::new(AtomicBool::new(true));
        let flag = full.clone();
        let hungry = std::thread::spawn(move || {
            while flag.load(Ordering::Relaxed) && to_the_last_byte(&mut ballast).is_ok() {
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        self.hungry = Some((full, hungry));
        Ok(())
    }

    /// Takes away what [`Self::fill`] has put there.
    pub(crate) fn free(&mut self) -> Result<()> {
        if let Some((full, hungry)) = self.hungry.take() {
            full.store(false, Ordering::Relaxed);
            let _ = hungry.join();
        }
        match fs::remove_file(self.path.join(BALLAST)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("freeing the disk"),
            _ => Ok(()),
        }
    }

    pub(crate) fn read_only(&self) -> Result<()> {
        self.remount("remount,ro")
    }

    pub(crate) fn writable(&self) -> Result<()> {
        self.remount("remount,rw")
    }

    /// While a process has a file open to write it, the kernel calls it busy; the process may be a
    /// stopped one.
    fn remount(&self, how: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            match run(Command::new("mount").args(["-o", how]).arg(&self.path)) {
                Err(error) if begun.elapsed() > Duration::from_secs(20) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                Ok(()) => return Ok(()),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.free();
        unmount(&self.path);
    }
}

/// Writes until there is no room. How much that was.
fn to_the_last_byte(file: &mut File) -> Result<usize> {
    let mut written = 0;
    loop {
        match file.write(&[0; PAGE]) {
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(written),
            Err(error) => return Err(error).context("filling the disk"),
        }
    }
}

fn unmount(path: &Path) {
    // Lazily: a process that still has a file open there keeps that file and nothing else.
    let _ = run(Command::new("umount").arg("-l").arg(path));
    let _ = fs::remove_dir(path);
}

/// The wall clock of one process, which libfaketime reads from a file at each look.
///
/// Where the process has no descriptor left to open that file with, it sees the true time for that
/// moment: a clock that jumps to and fro, which is more than was asked for.
#[derive(Debug)]
pub(crate) struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    pub(crate) fn new(file: PathBuf, library: PathBuf) -> Result<Self> {
        let this = Self { file, library };
        this.set(0)?;
        Ok(this)
    }

    /// From now on it is so many seconds ahead, or behind.
    pub(crate) fn set(&self, seconds: i64) -> Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).context("setting the clock")?;
        fs::rename(&new, &self.file).context("setting the clock")
    }

    /// `command` will look at it.
    pub(crate) fn wind(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            // What libfaketime's README calls FAKETIME_DONT_FAKE_MONOTONIC: steps are of the wall
            // clock alone.
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DISABLE_SHM", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

/// Where the disks and clocks of one run are. Dropping it removes the folder.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) library: PathBuf,
    /// Tests of one process run at the same time: each has a loopback network of its own.
    pub(crate) network: u8,
}

/// What all our folders are called at the beginning; then comes the process that made them.
const PREFIX: &str = "knock-hardship-";

impl Place {
    /// `None`, after one line on standard error that says why, where it cannot be made. With
    /// `KNOCK_TESTS_MUST_RUN=1` in the environment that is a failure instead.
    pub(crate) fn make(name: &str) -> Result<Option<Self>> {
        sweep();
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{name}", std::process::id()));
        match Self::at(path) {
            Ok(this) => Ok(Some(this)),
            Err(reason) => {
                if std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some_and(|value| value == "1") {
                    bail!("KNOCK_TESTS_MUST_RUN is set, but {reason:#}");
                }
                // The macros' output is kept back by the test harness, and it would not show that
                // nothing was tested.
                writeln!(std::io::stderr(), "hardship: {name}: skipped: {reason:#}")?;
                Ok(None)
            }
        }
    }

    fn at(path: PathBuf) -> Result<Self> {
        static NETWORKS: AtomicU8 = AtomicU8::new(32);
        fs::create_dir(&path).with_context(|| format!("{}", path.display()))?;
        let this = Self {
            network: NETWORKS.fetch_add(1, Ordering::Relaxed),
            library: library().context("libfaketimeMT.so.1 is not installed (Debian: faketime)")?,
            path,
        };
        run(Command::new("prlimit").arg("--version")).context("prlimit is not installed (Debian: util-linux)")?;
        let probe = Disk::mount(&this.path.join("probe")).context("disks of memory need root")?;
        probe.read_only().context("and the right to mount")?;
        Ok(this)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Debian has it in a folder that is named for the processor.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let folders = folders.chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")]);
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists())
}

/// Removes what runs left behind that were killed before they could.
fn sweep() {
    let folder = std::env::temp_dir();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let Some((owner, _)) = rest.and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        // The number alone may be another program's by now.
        let alive = fs::read(format!("/proc/{owner}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("hardship"));
        if alive {
            continue;
        }
        // A node that was stopped does not see that its input has ended.
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let is_ours = |word: &[u8]| Path::new(OsStr::from_bytes(word)).starts_with(entry.path());
            if line.split(|byte| *byte == 0).any(is_ours) {
                let _ = run(Command::new("kill").arg("-KILL").arg(process.file_name()));
            }
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(at).starts_with(entry.path()) {
                unmount(Path::new(at));
            }
        }
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Runs `command` to its end.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
