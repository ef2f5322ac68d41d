//! The Go originals as programs, built where there is a Go to build them with.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The peer that opens one stream, built into `directory` once for each run of the tests; `None`, and a line that says
/// why, where there is no Go to build it with.
///
/// # Panics
///
/// Instead of returning `None`, where `KNOCK_TESTS_MUST_RUN` is set: a test that skips would pass unseen.
pub fn peer(directory: &Path) -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| built(directory, "ragep2p-peer")).as_deref()
}

/// The host that does what it is told, otherwise as [`peer`].
///
/// # Panics
///
/// As [`peer`].
pub fn host(directory: &Path) -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| built(directory, "ragep2p-host")).as_deref()
}

/// go-libp2p's connection manager, which replays histories; otherwise as [`peer`].
///
/// # Panics
///
/// As [`peer`].
pub fn histories(directory: &Path) -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| built(directory, "connmgr-histories")).as_deref()
}

fn built(directory: &Path, program: &str) -> Option<PathBuf> {
    match build(directory, program) {
        Ok(path) => Some(path),
        Err(reason) if std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some() => panic!("{reason:#}"),
        Err(reason) => {
            println!("skipped: no {program} to run beside: {reason:#}");
            None
        }
    }
}

fn build(directory: &Path, program: &str) -> Result<PathBuf> {
    // What uses go-libp2p needs its Go, and what has a clock of its own is a test.
    let (needed, build): (u32, &[&str]) = match program {
        "connmgr-histories" => (26, &["test", "-c", "-trimpath", "-o"]),
        _ => (24, &["build", "-trimpath", "-o"]),
    };
    let version = Command::new("go")
        .args(["env", "GOVERSION"])
        .output()
        .with_context(|| format!("Go 1.{needed} or newer is needed"))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let minor = version.strip_prefix("go1.").and_then(|rest| rest.split('.').next());
    if minor
        .and_then(|minor| minor.parse().ok())
        .is_none_or(|minor: u32| minor < needed)
    {
        bail!("Go 1.{needed} or newer is needed, this is {version}");
    }
    let path = directory.join(program);
    let built = Command::new("go")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(program))
        .args(build)
        .arg(&path)
        .arg(".")
        .output()?;
    if !built.status.success() {
        bail!("go build: {}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(path)
}
