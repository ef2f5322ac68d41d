//! A citizen, its disk, its clock and its ledger; the process comes and goes.

use crate::disks::{Clock, Disk, Place};
use crate::faults::Faults;
use crate::ledger::{Fate, Ledger, stranger};
use anyhow::{Context as _, Result, ensure};
use interop::process::Process;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A node that is not stopped answers within this time. It takes milliseconds on an idle machine.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);
/// Lines of a process's output that are kept.
const KEPT: usize = 2000;

/// Below the ports that the kernel chooses, and not libp2p's usual ones, where other programs
/// listen.
const FIRST_PORT: u16 = 23_101;

/// How a node's manager is set, and what the system gives it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) hard: usize,
    pub(crate) grace: Duration,
    pub(crate) silence: Duration,
    /// 64 descriptors and no more.
    pub(crate) limited: bool,
    /// Nothing of it dials by itself.
    pub(crate) still: bool,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) peer: PeerId,
    pub(crate) socket: SocketAddr,
    pub(crate) settings: Settings,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) clock_is_wrong: bool,
    /// Somewhere to write that is not the node's.
    pub(crate) scratch: PathBuf,
    pub(crate) ledger: Ledger,
    /// The file was changed by hand and has not been read again.
    pub(crate) unread: bool,
    pub(crate) stopped: bool,
    pub(crate) starts: u32,
    /// Whom it talks with, and, if it wants them, where they are.
    partners: Vec<(PeerId, Option<String>)>,
    process: Option<Process>,
    /// It ended by itself.
    lost: bool,
    next: u64,
    begun: Instant,
    /// What was done to it, and the ends of what its earlier processes wrote.
    done: Vec<String>,
}

impl Node {
    pub(crate) fn new(place: &Place, index: usize, seed: u64, settings: Settings) -> Result<Self> {
        let disk = Disk::mount(&place.path.join(format!("disk-{index}")))?;
        let scratch = place.path.join(format!("scratch-{index}"));
        fs::create_dir(&scratch)?;
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        secret[8..16].copy_from_slice(&u64::try_from(index)?.to_le_bytes());
        let key = Keypair::ed25519_from_bytes(secret)?;
        fs::write(disk.path().join("key"), key.to_protobuf_encoding()?)?;
        // An address of the loopback network that is this process's own, so that a port that was
        // given up stays free.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, place.network, high, low | 1);
        Ok(Self {
            index,
            peer: stranger(secret),
            socket: SocketAddr::from((ip, FIRST_PORT + u16::try_from(index)?)),
            settings,
            disk,
            clock: Clock::new(scratch.join("clock"), place.library.clone())?,
            clock_is_wrong: false,
            scratch,
            ledger: Ledger::default(),
            unread: false,
            stopped: false,
            starts: 0,
            partners: Vec::new(),
            process: None,
            lost: false,
            next: 0,
            begun: Instant::now(),
            done: Vec::new(),
        })
    }

    pub(crate) fn name(&self) -> String {
        let limited = if self.settings.limited { ", 64 descriptors" } else { "" };
        format!("node {}{limited}", self.index)
    }

    fn listens(&self) -> String {
        format!("/ip4/{}/tcp/{}/tls", self.socket.ip(), self.socket.port())
    }

    /// Where it is found.
    pub(crate) fn address(&self) -> String {
        format!("{}/p2p/{}", self.listens(), self.peer)
    }

    /// Gives it a file of so many rules before it starts: a save then takes a while, and several
    /// pages of the disk.
    pub(crate) fn rule(&mut self, count: usize, seed: u64) -> Result<()> {
        let mut text = "libp2p-gater rules 1\n".to_owned();
        for number in (0..).take(count) {
            let rule = self.ledger.think_of(seed ^ (number << 32), None);
            self.ledger.settle(rule, Fate::There);
            let _ = writeln!(text, "{}", self.ledger.line(rule));
        }
        text.push_str("end\n");
        fs::write(self.disk.path().join("rules"), text).context("the first rules")
    }

    /// From the next start on it talks with `peer`, and keeps it connected if `address` says where
    /// it is.
    pub(crate) fn partner(&mut self, peer: PeerId, address: Option<String>) {
        self.partners.push((peer, address));
    }

    /// What was done to it, for people.
    pub(crate) fn log(&mut self, what: impl AsRef<str>) {
        let at = self.begun.elapsed().as_secs_f64();
        self.done.push(format!("{at:8.2} {}", what.as_ref()));
    }

    /// What was done to it so far, and the last `lines` that it wrote.
    pub(crate) fn story(&self, lines: usize) -> String {
        let mut all = format!("  what was done to {} ({}):\n", self.name(), self.peer);
        for line in &self.done {
            let _ = writeln!(all, "    {line}");
        }
        let written = self.process.as_ref().map(Process::transcript).unwrap_or_default();
        // States are asked for all the time, and would push out everything else.
        let all_lines: Vec<_> = written
            .lines()
            .filter(|line| !line.contains("\"connections\""))
            .collect();
        let trims: Vec<_> = all_lines.iter().filter(|line| line.contains("manager: Trim")).collect();
        let _ = writeln!(all, "  its last trims:");
        for line in &trims[trims.len().saturating_sub(lines)..] {
            let _ = writeln!(all, "  {line}");
        }
        let _ = writeln!(all, "  what it wrote last:");
        for line in &all_lines[all_lines.len().saturating_sub(lines)..] {
            let _ = writeln!(all, "  {line}");
        }
        all
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// It runs, and is not stopped: it has to answer.
    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some() && !self.stopped
    }

    /// Whether it was found ended, and not because of [`Self::kill`].
    pub(crate) fn has_ended_by_itself(&self) -> bool {
        self.lost
    }

    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Starts it with its key, its rules and its partners.
    pub(crate) fn start(&mut self, faults: &mut Faults) -> Result<()> {
        self.log("start");
        self.starts += 1;
        self.lost = false;
        self.unread = false;
        self.stopped = false;
        let milliseconds = |time: Duration| time.as_millis().to_string();
        let program = env!("CARGO_BIN_EXE_citizen");
        let mut command = if self.settings.limited {
            let mut command = Command::new("prlimit");
            command.args(["--nofile=64:64", program]);
            command
        } else {
            Command::new(program)
        };
        command
            .args(["--low", &self.settings.low.to_string()])
            .args(["--high", &self.settings.high.to_string()])
            .args(["--hard", &self.settings.hard.to_string()])
            .args(["--grace", &milliseconds(self.settings.grace)])
            .args(["--silence", &milliseconds(self.settings.silence)])
            .args(["--listen", &self.listens()])
            .arg("--state")
            .arg(self.disk.path());
        if self.settings.still {
            command.arg("--still");
        }
        self.clock.wind(&mut command);
        let process = Process::spawn(self.name(), &mut command)?;
        let listening = process.wait_for(|event| event["event"] == "listening", ANSWER);
        self.process = Some(process);
        if let Err(error) = listening {
            let who = Command::new("ss")
                .args(["-Htanp", &format!("sport = :{}", self.socket.port())])
                .output();
            let who = who.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            let what = format!("{error:#}\nsockets at its port: {}", who.unwrap_or_default());
            faults.note(self, "a node does not start", &what);
            self.process = None;
            self.lost = true;
            return Ok(());
        }
        for (peer, address) in self.partners.clone() {
            let peer = peer.to_string();
            self.asks(
                faults,
                &match address {
                    Some(address) => json!({ "do": "want", "peer": peer, "addresses": [address] }),
                    None => json!({ "do": "serve", "peer": peer }),
                },
            );
        }
        Ok(())
    }

    /// SIGKILL: no goodbye is said.
    pub(crate) fn kill(&mut self, faults: &mut Faults) {
        self.complaints(faults);
        if self.process.as_ref().is_some_and(Process::has_ended) {
            faults.note(self, "a node ended by itself", "before it was killed");
        }
        self.log("kill -9");
        self.stopped = false;
        if let Some(process) = self.process.take() {
            let written = process.transcript();
            let lines: Vec<_> = written.lines().collect();
            for line in &lines[lines.len().saturating_sub(10)..] {
                self.done.push(format!("           | {line}"));
            }
        }
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.log("stop");
        self.stopped = true;
        self.signal("-STOP")
    }

    pub(crate) fn go_on(&mut self) -> Result<()> {
        self.log("go on");
        self.stopped = false;
        self.signal("-CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let id = self.process_id().context("no process")?;
        let sent = Command::new("kill").args([name, &id.to_string()]).status()?;
        ensure!(sent.success(), "kill {name} {id}: {sent}");
        Ok(())
    }

    /// Sends a command and does not wait for the answer.
    pub(crate) fn tell(&mut self, command: &Value) -> Result<u64> {
        let id = self.next;
        self.next += 1;
        let process = self.process.as_mut().context("no process")?;
        process.send(&json!({ "id": id, "command": command }))?;
        Ok(id)
    }

    /// Sends a command and waits for the answer. Without one that is a fault, and a node that has
    /// ended is gone.
    pub(crate) fn asks(&mut self, faults: &mut Faults, command: &Value) -> Option<Value> {
        if !self.is_up() {
            return None;
        }
        let asked = self.tell(command);
        let process = self.process.as_ref()?;
        // Into a process that has ended nothing can be written.
        let gone = asked.is_err();
        let answer = asked.and_then(|id| {
            let mut answer = process.wait_for(|event| event["answer"] == id, ANSWER)?;
            Ok(answer["is"].take())
        });
        let ended = gone || process.has_ended();
        match answer {
            Ok(answer) if answer["error"].is_null() => return Some(answer),
            Ok(answer) => faults.note(self, "a node refuses a command", &format!("{command}: {answer}")),
            Err(error) if ended => {
                let said = error.to_string();
                let last: Vec<_> = said.lines().rev().take(5).collect();
                faults.note(self, "a node ended by itself", &format!("{command}: {last:?}"));
                self.process = None;
                self.lost = true;
            }
            Err(_) => faults.note(
                self,
                "a node does not answer",
                &format!("{command}: not within {ANSWER:?}"),
            ),
        }
        None
    }

    /// Everything that it knows of itself.
    pub(crate) fn state(&mut self, faults: &mut Faults) -> Option<Value> {
        self.asks(faults, &json!({ "do": "state" }))
    }

    /// Nothing that it wrote on standard error speaks of a panic.
    pub(crate) fn complaints(&mut self, faults: &mut Faults) {
        let Some(process) = &self.process else { return };
        let panic = process.complaint(|line| line.contains("panicked at"));
        process.forget(KEPT);
        if let Some(line) = panic {
            faults.note(self, "a node panics", &line);
        }
    }
}
