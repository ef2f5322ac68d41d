//! The built programs, run as their users run them.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// Far more than anything here takes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(30);

const STOCK_PORT: &str = "/ip4/127.0.0.1/tcp/0";
const KNOCK_PORT: &str = "/ip4/127.0.0.1/tcp/0/tls";

/// A program at one stage of its migration, and where it listens then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    exe: &'static str,
    args: &'static [&'static str],
    /// On stock addresses, and on the knock's.
    listens: (bool, bool),
}

const fn program(exe: &'static str, args: &'static [&'static str], listens: (bool, bool)) -> Program {
    Program { exe, args, listens }
}

impl Program {
    /// What it says when it will not start.
    pub(crate) fn refusal(self, args: &[&str]) -> String {
        let dir = Dir::new();
        let mut command = Command::new(self.exe);
        command
            .current_dir(&dir.0)
            .args(self.args)
            .args(args)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }
}

/// What an operator configures once and leaves as it is from stage to stage.
const BOTH_PORTS: [&str; 4] = ["--listen", STOCK_PORT, "--listen", KNOCK_PORT];

const MIGRATE_KNOCK: &str = env!("CARGO_BIN_EXE_migrate-knock");
pub(crate) const STOCK: Program = program(env!("CARGO_BIN_EXE_migrate-stock"), &[], (true, false));
pub(crate) const BACK: Program = program(MIGRATE_KNOCK, &["--stage", "stock"], (true, false));
pub(crate) const PREFER: Program = program(MIGRATE_KNOCK, &["--stage", "prefer"], (true, true));
pub(crate) const REQUIRE: Program = program(MIGRATE_KNOCK, &["--stage", "require"], (false, true));
pub(crate) const REMOVED: Program = program(env!("CARGO_BIN_EXE_migrate-knock-only"), &[], (false, true));

const KV_KNOCK: &str = env!("CARGO_BIN_EXE_kv-knock");
pub(crate) const KV_STOCK: Program = program(env!("CARGO_BIN_EXE_kv-stock"), &[], (true, false));
pub(crate) const KV_BACK: Program = program(KV_KNOCK, &["--stage", "stock"], (true, false));
pub(crate) const KV_PREFER: Program = program(KV_KNOCK, &["--stage", "prefer"], (true, true));
pub(crate) const KV_REQUIRE: Program = program(KV_KNOCK, &["--stage", "require"], (false, true));
pub(crate) const KV_REMOVED: Program = program(env!("CARGO_BIN_EXE_kv-knock-only"), &[], (false, true));

/// A directory of the test's own, removed when the test is done.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "migrate-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that runs, killed when dropped.
pub(crate) struct Node {
    program: Program,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
    pub(crate) peer: String,
    stock: Option<String>,
    knock: Option<String>,
    dir: Option<Dir>,
}

impl Node {
    /// Starts `program` with a key of its own, and waits until it listens.
    pub(crate) fn start(program: Program, args: &[&str]) -> Self {
        Self::start_in(Dir::new(), program, args)
    }

    pub(crate) fn start_in(dir: Dir, program: Program, args: &[&str]) -> Self {
        // A program without stages takes every address for its own.
        let listen = match program.listens {
            (true, false) if program.args.is_empty() => &BOTH_PORTS[..2],
            (false, true) if program.args.is_empty() => &BOTH_PORTS[2..],
            _ => &BOTH_PORTS,
        };
        let mut node = Self::spawn(dir, program, &[program.args, listen, args].concat());
        for _ in 0..u8::from(program.listens.0) + u8::from(program.listens.1) {
            node.listening();
        }
        assert_eq!(node.listens(), program.listens);
        node
    }

    /// Starts `program` with these arguments and no others.
    pub(crate) fn spawn(dir: Dir, program: Program, args: &[&str]) -> Self {
        let mut child = Command::new(program.exe)
            .current_dir(&dir.0)
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let (sender, lines) = mpsc::channel();
        read(child.stdout.take().unwrap(), "", sender.clone());
        read(child.stderr.take().unwrap(), "stderr: ", sender);
        let mut node = Self {
            program,
            child,
            stdin,
            lines,
            seen: Vec::new(),
            peer: String::new(),
            stock: None,
            knock: None,
            dir: Some(dir),
        };
        node.peer = node.expect("peer ");
        node
    }

    /// Waits for one more address to listen on.
    pub(crate) fn listening(&mut self) {
        let address = self.expect("listening ");
        let slot = if address.ends_with("/tls") {
            &mut self.knock
        } else {
            &mut self.stock
        };
        *slot = Some(format!("{address}/p2p/{}", self.peer));
        self.seen.retain(|line| !line.starts_with("listening "));
    }

    /// Whether on stock addresses, and on the knock's.
    pub(crate) fn listens(&self) -> (bool, bool) {
        (self.stock.is_some(), self.knock.is_some())
    }

    pub(crate) fn stock(&self) -> &str {
        self.stock.as_deref().unwrap()
    }

    pub(crate) fn knock(&self) -> &str {
        self.knock.as_deref().unwrap()
    }

    /// What to dial, stock first: an order that must not matter.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        self.stock.iter().chain(&self.knock).map(String::as_str).collect()
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// What follows `start` in a line that begins so, in what has been printed or in what will be.
    pub(crate) fn expect(&mut self, start: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(rest) = self.seen.iter().find_map(|line| line.strip_prefix(start)) {
                return rest.to_owned();
            }
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!(
                    "{:?}: no {start:?} ({error}) in:\n{}",
                    self.program,
                    self.seen.join("\n")
                ),
            }
        }
    }

    /// What it has said so far in lines that begin so, as far as somebody has waited for them.
    pub(crate) fn said(&self, start: &str) -> impl Iterator<Item = &str> {
        self.seen.iter().filter_map(move |line| line.strip_prefix(start))
    }

    /// Whether it has no business with stock peers.
    pub(crate) fn is_silent(&self) -> bool {
        !self.program.listens.0
    }

    /// Stops it, and hands out the directory with its key.
    pub(crate) fn stop(mut self) -> Dir {
        self.dir.take().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends every line, with `mark` before it, for as long as there are any.
fn read(from: impl Read + Send + 'static, mark: &'static str, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(format!("{mark}{line}")).is_err() {
                break;
            }
        }
    });
}

/// `args` with `flag` before each of them.
pub(crate) fn each<'a>(flag: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    args.iter().flat_map(|arg| [flag, *arg]).collect()
}

/// The socket address in a multiaddr of IPv4 and TCP.
pub(crate) fn socket(address: &str) -> SocketAddr {
    let parts: Vec<_> = address.split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}
