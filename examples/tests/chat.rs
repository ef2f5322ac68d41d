//! Two terminals.

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, ChildStdin, Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(60);

    struct Terminal {
        child: Child,
        /// Until it is closed.
        input: Option<ChildStdin>,
        lines: Receiver<String>,
        /// Lines that nobody has waited for yet.
        passed: Vec<String>,
    }

    impl Terminal {
        fn open(name: &str, port: u16, other: &str) -> Self {
            let mut child = Command::new(env!("CARGO_BIN_EXE_chat"))
                .args([name, &port.to_string(), other])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let input = child.stdin.take();
            let output = BufReader::new(child.stdout.take().unwrap());
            let (send, lines) = channel();
            std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
            Self {
                child,
                input,
                lines,
                passed: Vec::new(),
            }
        }

        /// Waits until the program has ended by itself, and says whether it went well.
        fn ends_well(mut self) -> bool {
            let deadline = Instant::now() + PATIENCE;
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status.success(),
                    None if Instant::now() > deadline => panic!("it does not end"),
                    None => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        }

        fn type_in(&mut self, line: &str) {
            writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        }

        /// Lines that come before it stay for later.
        fn wait_for(&mut self, wanted: &str) {
            let deadline = Instant::now() + PATIENCE;
            loop {
                if let Some(at) = self.passed.iter().position(|line| line == wanted) {
                    self.passed.remove(at);
                    return;
                }
                let left = deadline.saturating_duration_since(Instant::now());
                let line = self
                    .lines
                    .recv_timeout(left)
                    .unwrap_or_else(|_| panic!("no {wanted:?}"));
                self.passed.push(line);
            }
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// Both have to know the other's port before they start, so two that are free now.
    fn ports() -> [u16; 2] {
        let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        listeners.map(|listener| listener.local_addr().unwrap().port())
    }

    #[test]
    fn what_is_typed_arrives_and_so_does_what_was_typed_while_the_other_was_away() {
        let [a, b] = ports();
        let mut alice = Terminal::open("alice", a, &format!("bob@127.0.0.1:{b}"));
        alice.type_in("are you there?");
        let mut bob = Terminal::open("bob", b, &format!("alice@127.0.0.1:{a}"));
        bob.wait_for("alice: are you there?");
        bob.type_in("yes");
        alice.wait_for("bob: yes");
        alice.wait_for("* bob is here");
        drop(bob);
        alice.wait_for("* bob is away");
        alice.type_in("and now?");
        let mut bob = Terminal::open("bob", b, &format!("alice@127.0.0.1:{a}"));
        bob.wait_for("alice: and now?");
    }

    #[test]
    fn it_says_how_to_leave_and_leaves() {
        let [a, b] = ports();
        let other = format!("bob@127.0.0.1:{b}");
        let mut alice = Terminal::open("alice", a, &other);
        alice.wait_for("* /quit or Ctrl-D to leave");
        alice.type_in("/leave now");
        alice.wait_for("! there is no /leave: /quit or Ctrl-D to leave");
        alice.type_in("/quit");
        assert!(alice.ends_well());

        let mut alice = Terminal::open("alice", a, &other);
        // What Ctrl-D is to a terminal.
        alice.input.take();
        assert!(alice.ends_well());
    }

    #[test]
    fn all_the_lines_that_it_promises_to_keep_arrive() {
        let [a, b] = ports();
        let mut alice = Terminal::open("alice", a, &format!("bob@127.0.0.1:{b}"));
        alice.wait_for("* waiting for bob, who gets the last 100 lines that you type until then");
        for number in 0..100 {
            alice.type_in(&format!("line {number}"));
        }
        let mut bob = Terminal::open("bob", b, &format!("alice@127.0.0.1:{a}"));
        for number in 0..100 {
            bob.wait_for(&format!("alice: line {number}"));
        }
    }

    #[test]
    fn what_the_other_types_does_not_drive_the_terminal() {
        let [a, b] = ports();
        let mut alice = Terminal::open("alice", a, &format!("bob@127.0.0.1:{b}"));
        alice.type_in("red: \u{1b}[31m, and backwards: \u{202e}x");
        let mut bob = Terminal::open("bob", b, &format!("alice@127.0.0.1:{a}"));
        bob.wait_for("alice: red: \u{fffd}[31m, and backwards: \u{fffd}x");
    }
}
