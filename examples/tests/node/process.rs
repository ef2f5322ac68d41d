//! The built program, run as a user runs it.

use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Far more than anything here takes, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.current_dir(dir).args(args).env_remove("RUST_LOG");
    command
}

/// The program on a terminal of 80 columns, which is of the kind `term`.
#[cfg(target_os = "linux")]
pub(crate) fn on_a_terminal(dir: &Path, term: &str, args: &[&str]) -> Command {
    let words = [&[env!("CARGO_BIN_EXE_node")], args].concat();
    let words = shlex::try_join(words).unwrap();
    let mut command = Command::new("script");
    command
        .current_dir(dir)
        .args(["-qefc", &format!("stty cols 80 rows 24; exec {words}"), "/dev/null"])
        .env("TERM", term)
        .env_remove("RUST_LOG")
        .env_remove("NO_COLOR");
    command
}

/// What a user gets who pastes `line` into a shell.
#[cfg(unix)]
pub(crate) fn pasted(dir: &Path, line: &str) -> Command {
    let mut command = Command::new("sh");
    // The shell becomes the program, so that it can be killed.
    command
        .current_dir(dir)
        .args(["-c", &format!("exec {line}")])
        .env_remove("RUST_LOG");
    command
}

/// Runs the program to its end.
pub(crate) fn output(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory of the test's own, removed when the test is done.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("node-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A `node run` that goes on, killed when dropped.
pub(crate) struct Running {
    dir: PathBuf,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Starts `node run` with `args` in `dir`, and waits until it is ready.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        Self::spawn(dir, command(dir, &[&["run"], args].concat()))
    }

    /// Starts `command`, a `node run` in `dir`, and waits until it is ready.
    pub(crate) fn spawn(dir: &Path, mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            for byte in BufReader::new(stdout).bytes().map_while(Result::ok) {
                match byte {
                    // A progress bar goes back to the start of its line and draws itself again.
                    b'\n' | b'\r' => {
                        let text = String::from_utf8_lossy(&line).into_owned();
                        line.clear();
                        if sender.send(text).is_err() {
                            break;
                        }
                    }
                    byte => line.push(byte),
                }
            }
        });
        let seen = Vec::new();
        let mut running = Self {
            dir: dir.to_owned(),
            child,
            stdin,
            lines,
            seen,
        };
        running.expect("type a line to chat");
        running
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// Waits for a line with `text` in it, in what has been printed or in what will be.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no {text:?} ({error}) in:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Whether a line with `text` in it has been seen.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.seen.iter().any(|line| line.contains(text))
    }

    /// What was printed until now does not count any more.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }

    /// The address that the program tells its user to dial from a second terminal.
    pub(crate) fn address(&mut self) -> String {
        let line = self.expect("--key second.key --dial /ip4/127.0.0.1/");
        line.rsplit(' ').next().unwrap().to_owned()
    }

    /// What is in a file that it leaves behind when it ends, which it is about to.
    pub(crate) fn file(&mut self, name: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
