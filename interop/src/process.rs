//! A peer as a child process: commands in, events out.

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running peer. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// `None` once it was closed, which is how a peer is told to end.
    stdin: Option<ChildStdin>,
    seen: Arc<Seen>,
    readers: Vec<JoinHandle<()>>,
}

/// What the reader threads collect.
#[derive(Debug, Default)]
struct Seen {
    log: Mutex<Log>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    /// Everything from standard output, in order, with whether a wait has taken it.
    events: Vec<(Value, bool)>,
    /// Both streams as they came, for whoever must find out what happened.
    lines: Vec<String>,
    /// Standard output has ended: no event will come any more.
    ended: bool,
}

impl Process {
    /// Starts `command` with its standard streams piped. `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: cannot start {:?}", command.get_program()))?;
        let seen = Arc::new(Seen::default());
        let stdout = child.stdout.take().context("standard output is piped")?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        let events = std::thread::spawn({
            let seen = seen.clone();
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let mut log = seen.lock();
                    // Something else than JSON is for the human reader only.
                    if let Ok(event) = serde_json::from_str(&line) {
                        log.events.push((event, false));
                    }
                    log.lines.push(format!("out: {}", shortened(&line)));
                    seen.more.notify_all();
                }
                seen.lock().ended = true;
                seen.more.notify_all();
            }
        });
        let complaints = std::thread::spawn({
            let seen = seen.clone();
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    seen.lock().lines.push(format!("err: {}", shortened(&line)));
                }
            }
        });
        Ok(Self {
            name,
            stdin: child.stdin.take(),
            child,
            seen,
            readers: vec![events, complaints],
        })
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes `command` and a newline to its standard input.
    ///
    /// # Errors
    ///
    /// When the process has ended or its input was closed.
    pub fn send(&mut self, command: &Value) -> Result<()> {
        let name = &self.name;
        let stdin = self
            .stdin
            .as_mut()
            .with_context(|| format!("{name}: its input is closed"))?;
        writeln!(stdin, "{command}").with_context(|| format!("{name}: cannot send {}", shortened(&command.to_string())))
    }

    /// The earliest event that `wanted` accepts and that no wait has returned before, waiting for it if need be.
    ///
    /// Events that are passed over stay for later waits: two of them may be asked for in either order.
    ///
    /// # Errors
    ///
    /// After `timeout`, or when the process ends: with everything it wrote to either stream.
    pub fn wait_for(&self, wanted: impl Fn(&Value) -> bool, timeout: Duration) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        let mut log = self.seen.lock();
        loop {
            if let Some((event, taken)) = log.events.iter_mut().find(|(event, taken)| !taken && wanted(event)) {
                *taken = true;
                return Ok(event.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if log.ended {
                return Err(log.failure(&self.name, "ended without the awaited event"));
            }
            if left.is_zero() {
                return Err(log.failure(&self.name, &format!("no such event within {timeout:?}")));
            }
            log = self
                .seen
                .more
                .wait_timeout(log, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Every event so far, whether a wait has returned it or not.
    pub fn events(&self) -> Vec<Value> {
        let log = self.seen.lock();
        log.events.iter().map(|(event, _)| event.clone()).collect()
    }

    /// Whether its standard output has ended, as it does with the process.
    pub fn has_ended(&self) -> bool {
        self.seen.lock().ended
    }

    /// The first line of its standard error that is remembered and that `is` accepts.
    pub fn complaint(&self, is: impl Fn(&str) -> bool) -> Option<String> {
        let log = self.seen.lock();
        let mut complaints = log.lines.iter().filter_map(|line| line.strip_prefix("err: "));
        complaints.find(|line| is(line)).map(str::to_owned)
    }

    /// Forgets the events that a wait has returned, and of what it wrote all but the last `lines`: for a process that is
    /// asked for hours.
    pub fn forget(&self, lines: usize) {
        let mut log = self.seen.lock();
        log.events.retain(|(_, taken)| !taken);
        let old = log.lines.len().saturating_sub(lines);
        log.lines.drain(..old);
    }

    /// Everything it wrote to either stream so far, for a message.
    pub fn transcript(&self) -> String {
        self.seen.lock().transcript()
    }

    /// Closes its input, which asks it to end, and waits until it has.
    ///
    /// # Errors
    ///
    /// When it is still there after `timeout`.
    pub fn finish(mut self, timeout: Duration) -> Result<ExitStatus> {
        drop(self.stdin.take());
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(self
                    .seen
                    .lock()
                    .failure(&self.name, &format!("did not end within {timeout:?}")));
            }
            // The standard library can wait for a child for ever or not at all.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Seen {
    /// A reader that panicked has left a log that is short, not one that is wrong.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn failure(&self, name: &str, what: &str) -> anyhow::Error {
        anyhow!("{name}: {what}; it wrote:\n{}", self.transcript())
    }

    fn transcript(&self) -> String {
        self.lines.iter().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "  {line}");
            all
        })
    }
}

/// A payload of a megabyte would drown the rest of a message.
fn shortened(line: &str) -> String {
    const MOST: usize = 600;
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{} … ({} bytes)", &line[..at], line.len()),
        None => line.to_owned(),
    }
}
