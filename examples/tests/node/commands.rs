//! `demo` and `run`, each as its user would run it.

use crate::process::{Dir, Running, output, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

pub(crate) const ANY_PORT: [&str; 2] = ["--listen", "/ip4/127.0.0.1/tcp/0/tls"];

/// What `node demo` prints, run once for all who ask.
pub(crate) fn demo() -> &'static Output {
    static DEMO: OnceLock<Output> = OnceLock::new();
    DEMO.get_or_init(|| output(Path::new(env!("CARGO_TARGET_TMPDIR")), &["demo"]))
}

#[test]
fn every_step_of_the_demo_goes_well() {
    let printed = stdout(demo());
    assert!(demo().status.success(), "{printed}{}", stderr(demo()));
    let last = printed.lines().last().unwrap();
    let steps = printed.lines().filter(|line| line.starts_with("ok  ")).count();
    assert_eq!(last, format!("demo: {steps}/{steps} ok"));
    assert_eq!(stderr(demo()), "", "no progress bar where stderr is no terminal");
    assert!(!printed.contains('\u{1b}'), "no colours where stdout is no terminal");
}

#[test]
fn the_demo_speaks_json() {
    let output = output(Path::new(env!("CARGO_TARGET_TMPDIR")), &["demo", "--json"]);
    let printed = stdout(&output);
    assert!(output.status.success(), "{printed}{}", stderr(&output));
    let lines: Vec<serde_json::Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, steps) = lines.split_last().unwrap();
    for step in steps {
        assert!(
            step["step"].is_string() && step["ok"] == true && step["ms"].is_f64(),
            "{step}"
        );
    }
    assert_eq!(
        last["demo"],
        serde_json::json!({ "ok": steps.len(), "of": steps.len() })
    );
}

#[test]
fn a_damaged_key_file_is_named_and_left_alone() {
    let dir = Dir::new("damaged");
    for (bytes, said) in [
        (&b"not a key"[..], "damaged"),
        (&[8, 2, 18, 1, 7], "secp256k1"),
        (&[], "empty"),
    ] {
        write_private(&dir.path().join("x.key"), bytes);
        let output = output(dir.path(), &["run", "--key", "x.key"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains("x.key") && stderr(&output).contains(said),
            "{}",
            stderr(&output)
        );
        assert_eq!(std::fs::read(dir.path().join("x.key")).unwrap(), bytes);
    }
}

#[cfg(unix)]
#[test]
fn the_key_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new("mode");
    let path = dir.path().join("node.key");
    let mut first = Running::start(dir.path(), &ANY_PORT);
    let peer = first.expect("peer id");
    first.kill();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(
        Running::start(dir.path(), &ANY_PORT).expect("peer id"),
        peer,
        "the key is kept"
    );

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let output = output(dir.path(), &["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("chmod 600 node.key"), "{}", stderr(&output));
    assert_eq!(
        path.metadata().unwrap().permissions().mode() & 0o7777,
        0o644,
        "left as it is"
    );
}

pub(crate) fn write_private(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// Everything below a directory that is not a directory itself.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

#[test]
fn two_nodes_chat_and_send_files() {
    let dir = Dir::new("chat");
    let mut alice = Running::start(dir.path(), &[&ANY_PORT[..], &["--max-mib", "4"]].concat());
    let address = alice.address();
    let mut bob = Running::start(
        dir.path(),
        &[&ANY_PORT[..], &["--key", "second.key", "--dial", &address]].concat(),
    );
    alice.expect(" connected, from /ip4/127.0.0.1/tcp/");
    bob.expect(" connected, to /ip4/127.0.0.1/tcp/");

    // A line that nobody wants yet is refused. Gossip needs a moment after the connection.
    let mut attempt = 0;
    loop {
        bob.type_line(&format!("hello \u{1b}[31m{attempt}"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        bob.type_line(&format!("/no-such-command-{attempt}"));
        bob.expect(&format!("there is no /no-such-command-{attempt}"));
        if !bob.has("! not sent") || attempt == 20 {
            break;
        }
        bob.forget();
        attempt += 1;
    }
    alice.expect(&format!(": hello \u{fffd}[31m{attempt}"));

    let content: Vec<u8> = (0..3 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(dir.path().join("a file.bin"), &content).unwrap();
    for copy in ["a file.bin", "a file-1.bin"] {
        bob.type_line("/send a file.bin");
        alice.expect(&format!("{copy} from"));
        bob.expect("* sent a file.bin");
        let [received, sent] = [&mut alice, &mut bob].map(|node| node.expect("  SHA-256 "));
        assert_eq!(received.len(), "  SHA-256 ".len() + 64);
        assert_eq!(received, sent);
        alice.forget();
        let found = files(&dir.path().join("received"));
        let path = found.iter().find(|path| path.ends_with(copy)).unwrap();
        assert!(std::fs::read(path).unwrap() == content);
        bob.forget();
    }

    std::fs::File::create(dir.path().join("large.bin"))
        .unwrap()
        .set_len((4 << 20) + 1)
        .unwrap();
    bob.type_line("/send large.bin");
    bob.expect("! large.bin not sent to");
    assert_eq!(files(&dir.path().join("received")).len(), 2);
    bob.type_line("/quit");
    alice.expect(" disconnected");
    // The prefixes of friends are kept for the next start, and their names are not.
    alice.type_line("/quit");
    let known = alice.file("node.key.known");
    assert!(known.contains("\n127.0.0.0/24 "), "{known}");
    assert_eq!(known.lines().count(), 4, "{known}");
}

#[test]
fn half_a_file_is_removed() {
    let dir = Dir::new("half");
    let mut alice = Running::start(dir.path(), &ANY_PORT);
    let address = alice.address();
    let mut bob = Running::start(
        dir.path(),
        &[&ANY_PORT[..], &["--key", "second.key", "--dial", &address]].concat(),
    );
    bob.expect(" connected, to ");
    // Takes no space on disk at the sender, and longer than it takes to kill him.
    std::fs::File::create(dir.path().join("sparse.bin"))
        .unwrap()
        .set_len(512 << 20)
        .unwrap();
    bob.type_line("/send sparse.bin");
    alice.expect(" sends sparse.bin, 512 MiB");
    bob.kill();
    alice.expect("! sparse.bin from ");
    assert_eq!(files(&dir.path().join("received")), Vec::<PathBuf>::new());
}

#[test]
fn a_second_node_without_flags_takes_another_port() {
    let dirs = [Dir::new("first"), Dir::new("second")];
    let mut nodes = dirs.each_ref().map(|dir| Running::start(dir.path(), &[]));
    let ports = nodes
        .each_mut()
        .map(|node| node.address().split('/').nth(4).unwrap().to_owned());
    assert_ne!(ports[0], ports[1]);
    // Unless some other program has the port, in which case both had to look for another.
    if ports[0] != "4001" {
        nodes[0].expect("port 4001 is taken");
    }
    nodes[1].expect("port 4001 is taken");
}

#[test]
fn addresses_that_cannot_work_are_explained() {
    let dir = Dir::new("wrong");
    let address = Running::start(dir.path(), &ANY_PORT).address();
    let (base, _) = address.split_once("/p2p/").unwrap();
    let stock = address.replace("/tls", "");
    for (arg, value, said) in [
        ("--dial", address.as_str(), "is this node itself"),
        ("--dial", base, "/tls/p2p/<peer id>"),
        ("--dial", stock.as_str(), "is this node itself"),
        (
            "--dial",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1/tls/p2p/<peer id>",
        ),
        ("--dial", "127.0.0.1:1", "invalid multiaddr"),
        ("--listen", "/ip4/127.0.0.1/tcp/0", "/tcp/4001/tls"),
    ] {
        let output = output(dir.path(), &["run", arg, value]);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(said), "{arg} {value}: {}", stderr(&output));
    }
}
