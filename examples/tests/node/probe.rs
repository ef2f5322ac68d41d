//! `probe`: what it finds, what it says meanwhile, and what programs get to read.

use crate::commands::ANY_PORT;
use crate::process::{Dir, Running, command, output, stderr, stdout};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

/// A server that says `hello?` to whatever connects.
fn loud() -> String {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    std::thread::spawn(move || server.accept().unwrap().0.write_all(b"hello?"));
    address
}

/// An address where nothing listens.
fn nothing(dir: &Path) -> String {
    Running::start(dir, &ANY_PORT).address()
}

#[test]
fn a_probe_learns_nothing_from_a_node_and_something_from_others() {
    let dir = Dir::new("probe");
    let refused = output(dir.path(), &["probe", &nothing(dir.path())]);
    assert_eq!(refused.status.code(), Some(2), "the node is gone: {}", stdout(&refused));

    let mut node = Running::start(dir.path(), &ANY_PORT);
    let silent = output(dir.path(), &["probe", &node.address(), "--seconds", "2"]);
    let said = stdout(&silent);
    assert!(said.starts_with("sent 1024 bytes, received 0 in 2."), "{said}");
    assert!(silent.status.success());

    let loud = output(dir.path(), &["probe", &loud(), "--seconds", "2"]);
    let said = stdout(&loud);
    assert!(said.starts_with("sent 1024 bytes, received 6 in "), "{said}");
    assert_eq!(loud.status.code(), Some(1));
}

#[test]
fn a_probe_whose_output_is_not_read_to_its_end_still_says_by_its_code_what_came_back() {
    let dir = Dir::new("unread");
    let mut probe = command(dir.path(), &["probe", &loud(), "--seconds", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(probe.stdout.take());
    assert_eq!(probe.wait().unwrap().code(), Some(1));
}

#[test]
fn a_probe_says_that_it_waits_and_for_how_long_before_it_does() {
    let dir = Dir::new("waits");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut probe = command(dir.path(), &["probe", &address, "--seconds", "300"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(probe.stderr.take().unwrap()).lines().take(2);
    let said: Vec<_> = said.map(Result::unwrap).collect();
    let waits = probe.try_wait().unwrap().is_none();
    probe.kill().unwrap();
    probe.wait().unwrap();
    assert!(
        said[0].contains(&format!("connecting to 127.0.0.1 port {port}")),
        "{said:?}"
    );
    assert!(said[1].contains("waiting 300 s for an answer"), "{said:?}");
    assert!(waits);
}

#[test]
fn a_probe_tells_programs_the_same_keys_whatever_it_finds() {
    let dir = Dir::new("probe-json");
    let (gone, loud) = (nothing(dir.path()), loud());
    let mut node = Running::start(dir.path(), &ANY_PORT);
    let node = node.address();
    let help = stdout(&output(dir.path(), &["probe", "--help"]));
    for (address, code, known) in [
        (
            &node,
            0,
            json!({ "outcome": "silent", "sent": 1024, "received": 0, "begins_with": "", "ended": null, "error": null }),
        ),
        (
            &loud,
            1,
            json!({ "outcome": "answered", "sent": 1024, "received": 6, "begins_with": "68656c6c6f3f", "error": null }),
        ),
        (
            &gone,
            2,
            json!({ "outcome": "unreachable", "sent": 0, "received": 0, "seconds": 0.0, "begins_with": "", "ended": null }),
        ),
        (
            &"nowhere".to_owned(),
            2,
            json!({ "outcome": "unreachable", "sent": 0, "received": 0, "seconds": 0.0, "begins_with": "", "ended": null }),
        ),
    ] {
        let output = output(dir.path(), &["probe", "--json", address, "--seconds", "1"]);
        let said = stdout(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let found: Value = serde_json::from_str(&said).unwrap();
        let mut keys: Vec<_> = found.as_object().unwrap().keys().map(String::as_str).collect();
        // Their order means nothing in JSON, and depends on what else is built.
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "address",
                "begins_with",
                "ended",
                "error",
                "outcome",
                "received",
                "seconds",
                "sent"
            ]
        );
        assert_eq!(found["address"], **address);
        for (key, value) in known.as_object().unwrap() {
            assert_eq!(found[key], *value, "{key} of {found}");
        }
        assert_eq!(found["error"].is_string(), code == 2, "{found}");
        assert_eq!(found["seconds"].as_f64().unwrap() > 0.0, code != 2, "{found}");
        assert!(!stderr(&output).contains("error:"), "said on stdout already");
        // Documented where a user looks for it.
        for key in keys {
            assert!(help.contains(&format!("\"{key}\"")), "{key}: {help}");
        }
    }
}
