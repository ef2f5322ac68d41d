//! The Go program under `interop/go`, built where there is a Go to build it with.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds it beside this program. Go fetches what it depends on, once.
pub(super) fn program() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/go/connmgr-bench");
    let path = std::env::current_exe()?.with_file_name("go-connmgr-bench");
    let built = Command::new("go")
        .current_dir(source)
        .args(["build", "-trimpath", "-o"])
        .arg(&path)
        .arg(".")
        .output()
        .context("Go 1.26 or newer is needed")?;
    ensure!(
        built.status.success(),
        "go build: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    Ok(path)
}
