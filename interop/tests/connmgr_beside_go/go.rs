//! go-libp2p's manager, in a process of its own: `interop/go/connmgr-histories`.

use crate::history::{History, PEERS};
use crate::naive::{DECAYING, Op, SECOND, TAGS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Go {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

#[derive(Serialize)]
struct Request {
    low: usize,
    high: usize,
    grace: u64,
    silence: u64,
    resolution: u64,
    slow: bool,
    peers: usize,
    protection: Vec<&'static str>,
    operations: Vec<Operation>,
}

#[derive(Serialize, Default)]
struct Operation {
    #[serde(rename = "do")]
    what: &'static str,
    peer: usize,
    tag: &'static str,
    value: i64,
    inbound: bool,
    streams: u32,
    serial: usize,
    port: usize,
    seconds: u64,
}

/// What is so after an operation. Times are milliseconds.
#[derive(Debug, Deserialize)]
pub(crate) struct State {
    pub(crate) trims: Option<Vec<Trim>>,
    pub(crate) peers: Vec<Option<Info>>,
    pub(crate) connected: Option<Vec<usize>>,
    pub(crate) protected: Vec<Vec<bool>>,
    pub(crate) count: usize,
    pub(crate) last_trim: i64,
    pub(crate) still: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Trim {
    pub(crate) at: u64,
    pub(crate) closed: Vec<usize>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    pub(crate) first_seen: u64,
    pub(crate) value: i64,
    pub(crate) tags: BTreeMap<String, i64>,
    pub(crate) addresses: usize,
}

/// Under which a guard protects where there are no guards.
const USE: &str = "in use";

/// Ports of a peer's addresses: fewer than it may have connections.
pub(crate) fn port(serial: usize) -> usize {
    1 + serial % 3
}

impl Go {
    /// `None`, and a line that says why, where there is no Go to build it with.
    pub(crate) fn start(directory: &Path) -> Option<Self> {
        let program = interop::go::histories(directory)?;
        let mut child = Command::new(program)
            .args(["-test.run=TestHistories", "-test.timeout=0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, stdin, stdout })
    }

    pub(crate) fn states(&mut self, history: &History) -> Vec<State> {
        let setting = history.setting;
        let mut guards = [0_usize; PEERS];
        let request = Request {
            low: setting.low,
            high: setting.high,
            grace: setting.grace / SECOND,
            silence: setting.silence / SECOND,
            resolution: setting.resolution / SECOND,
            slow: setting.slow,
            peers: PEERS,
            protection: TAGS.to_vec(),
            operations: (0..)
                .zip(&history.ops)
                .map(|(at, op)| operation(at, *op, &mut guards))
                .collect(),
        };
        serde_json::to_writer(&mut self.stdin, &request).unwrap();
        self.stdin.write_all(b"\n").unwrap();
        self.stdin.flush().unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("go answered {line:?}: {error}"))
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn operation(serial: usize, op: Op, guards: &mut [usize]) -> Operation {
    let with = |what, peer, tag, value| Operation {
        what,
        peer,
        tag,
        value,
        ..Operation::default()
    };
    match op {
        Op::Tag(peer, tag, value) => with("tag", peer, TAGS[tag], value),
        Op::Untag(peer, tag) => with("untag", peer, TAGS[tag], 0),
        Op::Upsert(peer, tag, by) => with("upsert", peer, TAGS[tag], by),
        Op::Protect(peer, tag) => with("protect", peer, TAGS[tag], 0),
        Op::Unprotect(peer, tag) => with("unprotect", peer, TAGS[tag], 0),
        Op::Guard(peer) => {
            guards[peer] += 1;
            with("protect", peer, USE, 0)
        }
        Op::Unguard(peer) if guards[peer] > 0 => {
            guards[peer] -= 1;
            let what = if guards[peer] == 0 { "unprotect" } else { "nothing" };
            with(what, peer, USE, 0)
        }
        Op::Bump(peer, tag, by) => with("bump", peer, DECAYING[tag], by),
        Op::Remove(peer, tag) => with("remove", peer, DECAYING[tag], 0),
        Op::Reset(tag) => with("reset", 0, DECAYING[tag], 0),
        Op::Connect(peer, link) => Operation {
            what: "connect",
            peer,
            inbound: !link.dialled,
            streams: link.streams.unwrap_or(0),
            serial,
            port: port(serial),
            ..Operation::default()
        },
        Op::Disconnect(peer) => with("disconnect", peer, "", 0),
        Op::Release(connections) => with("release", 0, "", i64::try_from(connections).unwrap_or(0)),
        Op::Trim => with("trim", 0, "", 0),
        Op::ForceTrim => with("force", 0, "", 0),
        Op::Wait(seconds) => Operation {
            what: "wait",
            seconds,
            ..Operation::default()
        },
        Op::Close => with("close", 0, "", 0),
        Op::Unguard(_) | Op::BeginDial(_) | Op::EndDial(_) => with("nothing", 0, "", 0),
        Op::Jump(_) | Op::Back(_) => unreachable!("only this crate's own tests have a clock that jumps"),
    }
}
