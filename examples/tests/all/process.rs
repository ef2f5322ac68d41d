//! The built programs, run as their users run them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Far more than anything here takes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ALL: &str = env!("CARGO_BIN_EXE_all");
pub(crate) const STOCK: &str = env!("CARGO_BIN_EXE_all-stock");

pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const KNOCK: &str = "/ip4/127.0.0.1/tcp/0/tls";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// A program that runs, killed when dropped, in a directory of its own.
pub(crate) struct Node {
    dir: PathBuf,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
    pub(crate) peer: String,
}

impl Node {
    pub(crate) fn start(program: &str, args: &[&str]) -> Self {
        Self::start_in(Self::dir(), program, args)
    }

    pub(crate) fn dir() -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("all-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub(crate) fn start_in(dir: PathBuf, program: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program)
            .current_dir(&dir)
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        let (seen, peer) = (Vec::new(), String::new());
        let mut node = Self {
            dir,
            child,
            stdin,
            lines,
            seen,
            peer,
        };
        node.peer = node.expect("peer ");
        node
    }

    /// The address of its own in which `part` is, with its peer id.
    pub(crate) fn address(&mut self, part: &str) -> String {
        let address = self.find(|line| line.starts_with("listening ") && line.contains(part) && fits(line, part));
        format!("{}/p2p/{}", &address["listening ".len()..], self.peer)
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// What follows `start` in a line that begins so, in what has been printed or in what will be.
    pub(crate) fn expect(&mut self, start: &str) -> String {
        self.find(|line| line.starts_with(start))[start.len()..].to_owned()
    }

    /// Such a line, in what has been printed or in what will be.
    pub(crate) fn find(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.seen.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("not there ({error}):\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Repeats `ask` until a line that `wanted` takes follows.
    pub(crate) fn ask_until(&mut self, ask: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.type_line(ask);
            while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
                self.seen.push(line);
            }
            if let Some(line) = self.seen.iter().find(|line| wanted(line)) {
                return line.clone();
            }
        }
        panic!("{ask} never leads there:\n{}", self.seen.join("\n"));
    }

    /// Ends it, and leaves its directory with its key.
    pub(crate) fn stop(mut self) -> PathBuf {
        std::mem::take(&mut self.dir)
    }

    pub(crate) fn write(&self, file: &str, content: &str) {
        std::fs::write(self.dir.join(file), content).unwrap();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// What Prometheus would get.
    pub(crate) fn scrape(&mut self) -> String {
        let address = self.expect("metrics http://");
        let mut socket = TcpStream::connect(address.trim_end_matches("/metrics")).unwrap();
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
        text
    }
}

/// A knock's address ends in its mark, and a stock one in its port.
fn fits(line: &str, part: &str) -> bool {
    match part {
        "/tcp/" => !line.ends_with("/tls"),
        _ => true,
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Not the working directory, which an empty path would stand for.
        if !self.dir.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
