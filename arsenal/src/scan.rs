//! Other people's scanners, where they are installed. What they print does not matter: they go through a proxy that
//! counts, and the verdict is how many payload bytes the listener sent them.

use crate::inpath::{InPath, Mode};
use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// What became of one scanner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ran {
    /// It is not installed: nothing is known.
    Missing,
    /// It came to its end.
    ToItsEnd,
    /// It was still at it when its time was over.
    OutOfTime,
}

/// One scanner against one listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// Its name.
    pub scanner: String,
    /// Whether it ran.
    pub ran: Ran,
    /// Connections it made.
    pub connections: u64,
    /// Payload bytes the listener sent it.
    pub bytes_answered: u64,
    /// How long it took.
    pub seconds: f64,
}

/// The scanners: a name, the names of the program, the arguments.
type Scanner = (&'static str, &'static [&'static str], fn(SocketAddr) -> Vec<String>);

const SCANNERS: [Scanner; 4] = [
    ("nmap", &["nmap"], |at| {
        words(&format!("-Pn -sV --version-all -p {} {}", at.port(), at.ip()))
    }),
    ("testssl.sh", &["testssl.sh", "testssl"], |at| {
        words(&format!(
            "--warnings batch --color 0 --connect-timeout 5 --openssl-timeout 5 {at}"
        ))
    }),
    ("sslscan", &["sslscan"], |at| {
        words(&format!("--no-colour --timeout=5 {at}"))
    }),
    ("sslyze", &["sslyze"], |at| words(&at.to_string())),
];

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Runs each scanner that is installed against `target`, one after the other, each for `limit` at most.
///
/// # Errors
///
/// When the proxy cannot listen, or a scanner is there and cannot be started.
pub async fn scan(target: SocketAddr, limit: Duration) -> Result<Vec<Scan>> {
    let mut scans = Vec::new();
    for (name, programs, arguments) in SCANNERS {
        let listen = SocketAddr::new(target.ip(), 0);
        let proxy = InPath::start(listen, target, Mode::Pass)
            .await
            .context("the counting proxy")?;
        let started = Instant::now();
        let ran = run(programs, &arguments(proxy.address), limit)
            .await
            .with_context(|| format!("cannot run {name}"))?;
        scans.push(Scan {
            scanner: name.to_owned(),
            ran,
            connections: proxy.connections(),
            bytes_answered: proxy.bytes_answered(),
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    Ok(scans)
}

async fn run(programs: &[&str], arguments: &[String], limit: Duration) -> io::Result<Ran> {
    for program in programs {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A group of its own: some are scripts, whose children are to end with them.
        let mut child = match command.process_group(0).kill_on_drop(true).spawn() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            child => child?,
        };
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        return Ok(match tokio::time::timeout(limit, child.wait()).await {
            Ok(status) => status.map(|_| Ran::ToItsEnd)?,
            Err(_) => {
                if let Some(group) = group {
                    // It can only have ended by itself at this very moment.
                    let _ = kill_process_group(group, Signal::KILL);
                }
                child.wait().await?;
                Ran::OutOfTime
            }
        });
    }
    Ok(Ran::Missing)
}
