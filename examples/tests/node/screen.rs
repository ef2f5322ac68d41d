//! What the programs draw on a terminal, and what they print without one.

use crate::commands::ANY_PORT;
use crate::process::{Dir, command};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

#[cfg(target_os = "linux")]
mod terminal {
    use crate::commands::ANY_PORT;
    use crate::process::{Dir, Running, on_a_terminal, stdout};
    use std::process::Stdio;

    #[test]
    fn the_sender_sees_how_far_a_file_is_how_fast_and_how_long_it_takes() {
        let dir = Dir::new("progress");
        let mut alice = Running::start(dir.path(), &ANY_PORT);
        let address = alice.address();
        let args = [&["run", "--key", "second.key", "--dial", &address], &ANY_PORT[..]].concat();
        let mut bob = Running::spawn(dir.path(), on_a_terminal(dir.path(), "xterm", &args));
        bob.expect(" connected, to ");
        std::fs::File::create(dir.path().join("big.bin"))
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        bob.type_line("/send big.bin");
        for what in ["reading big.bin [", "big.bin ["] {
            let bar = bob.expect(what);
            let (_, numbers) = bar.split_once("] ").unwrap();
            let numbers: Vec<_> = numbers.split(", ").collect();
            assert_eq!(numbers.len(), 3, "{bar:?}");
            assert!(numbers[0].ends_with('%'), "{bar:?}");
            assert!(numbers[1].ends_with("/s"), "{bar:?}");
            assert!(numbers[2].contains(" left"), "{bar:?}");
        }
        bob.expect("* sending big.bin to ");
        bob.expect("* sent big.bin to ");
        alice.expect("/big.bin from ");
    }

    #[test]
    fn nothing_is_coloured_or_drawn_over_on_a_dumb_terminal() {
        let dir = Dir::new("dumb");
        let output = on_a_terminal(dir.path(), "dumb", &["demo"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let printed = stdout(&output);
        assert!(output.status.success(), "{printed}");
        assert!(printed.contains("\nok  alice sends bob a file"), "{printed}");
        assert!(!printed.contains('\u{1b}'), "{printed:?}");
    }
}

#[test]
fn a_log_in_a_file_has_no_colours() {
    let dir = Dir::new("log");
    let mut node = command(dir.path(), &[&["run"], &ANY_PORT[..]].concat())
        .env("RUST_LOG", "debug")
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(node.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut levels = log.filter(|line| line.contains("DEBUG") || line.contains("INFO"));
    let line = levels.next();
    node.kill().unwrap();
    node.wait().unwrap();
    let line = line.unwrap();
    assert!(!line.contains('\u{1b}'), "{line:?}");
}
