//! Recorded first flights: everything a dialer sent before it heard a byte. One file each, the bare bytes.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const SUFFIX: &str = "flight";

/// A directory that flights are recorded into.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    next: AtomicUsize,
}

impl Recorder {
    /// Records into `directory`, which is made if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn new(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            directory,
            next: AtomicUsize::new(0),
        })
    }

    /// Writes one flight into a file of its own.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn record(&self, flight: &[u8]) -> Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{number:06}.{SUFFIX}"));
        std::fs::write(&path, flight).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// The flights in `paths`: files, and all the flights in directories. Their order is that of the names.
///
/// # Errors
///
/// When one cannot be read, or is empty, or a directory has none: a replay of nothing would prove nothing.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let mut flights = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = flights_in(path).with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(!found.is_empty(), "{} holds no file *.{SUFFIX}", path.display());
            for file in found {
                flights.push(read(&file)?);
            }
        } else {
            flights.push(read(path)?);
        }
    }
    Ok(flights)
}

fn flights_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|suffix| suffix == SUFFIX) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let flight = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(!flight.is_empty(), "{} is empty", path.display());
    Ok(flight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_loaded_in_order_and_an_empty_place_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("flights");
        let recorder = Recorder::new(&place).unwrap();
        assert!(load(std::slice::from_ref(&place)).is_err());
        recorder.record(b"one").unwrap();
        let two = recorder.record(b"two").unwrap();
        assert_eq!(load(&[place, two]).unwrap(), [b"one", b"two", b"two"]);
    }
}
