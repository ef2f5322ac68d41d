//! go-libp2p's BasicConnectionGater with the same rules, in a process of its own.

use crate::Options;
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

#[derive(Serialize)]
pub(crate) struct Measured {
    pub(crate) load_s: f64,
    pub(crate) heap_mib: f64,
    /// By `stage answer`.
    decision_ns: BTreeMap<String, f64>,
}

impl Measured {
    /// The median, by our name for the stage.
    pub(crate) fn decision(&self, stage: &str, hit: bool) -> Option<f64> {
        let stage = match stage {
            // It never looks at the peer there.
            "addr_dial_no_peer" => "addr_dial",
            other => other,
        };
        self.decision_ns
            .get(&format!("{stage} {}", super::answer(hit)))
            .copied()
    }
}

/// `None`, and a line that says why, where there is no Go to build it with. Where `KNOCK_TESTS_MUST_RUN` is set that is an
/// error: a measurement that is left out would go unseen.
pub(crate) fn run(directory: &Path, rules: &Path, questions: &Path, options: &Options) -> Result<Option<Measured>> {
    match build(directory) {
        Ok(()) => {}
        Err(reason) if std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some() => return Err(reason),
        Err(reason) => {
            println!("\nleft out: go-libp2p: {reason:#}");
            return Ok(None);
        }
    }
    let output = Command::new(directory.join("gater-bench"))
        .args([rules, questions])
        .arg(options.rounds(5, 1).min(5).to_string())
        .output()?;
    ensure!(
        output.status.success(),
        "gater-bench: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let mut values: BTreeMap<String, f64> = BTreeMap::new();
    for line in text.lines() {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("no result: {line}"))?;
        values.insert(
            name.to_owned(),
            value.parse().with_context(|| format!("no number: {line}"))?,
        );
    }
    Ok(Some(Measured {
        load_s: values.remove("load_s").context("no load_s")?,
        heap_mib: values.remove("heap_mib").context("no heap_mib")?,
        decision_ns: values,
    }))
}

fn build(directory: &Path) -> Result<()> {
    let built = Command::new("go")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/go/gater-bench"))
        .args(["build", "-trimpath", "-o"])
        .arg(directory.join("gater-bench"))
        .arg(".")
        .output()
        .context("Go 1.26 or newer is needed")?;
    if !built.status.success() {
        bail!("go build: {}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(())
}
