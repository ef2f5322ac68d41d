//! Files that are no rules: each is refused with its name and the line, and left as it is.

use libp2p_gater::{CidrError, FileError, LineError, RuleError, Rules};
use std::io::ErrorKind;
use std::path::Path;

const PEER: &str = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

/// The line and what is wrong with it, of `bytes` as a file.
fn wrong(bytes: &[u8]) -> (usize, LineError) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    std::fs::write(&path, bytes).expect("written");
    let error = Rules::load(&path).expect_err(&String::from_utf8_lossy(bytes));
    assert_eq!(std::fs::read(&path).expect("there"), bytes, "the file is untouched");
    let shown = error.to_string();
    let FileError::Line {
        path: named,
        line,
        error,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(named, path);
    assert!(
        shown.starts_with(&format!("{}, line {line}: ", path.display())),
        "{shown}"
    );
    (line, error)
}

fn field(word: &str) -> LineError {
    LineError::Field(word.to_owned())
}

#[test]
fn a_line_that_cannot_be_understood_is_named() {
    let value = |value: &str, wanted| LineError::Value {
        value: value.to_owned(),
        wanted,
    };
    let network = |value: &str, error| LineError::Network {
        value: value.to_owned(),
        error,
    };
    let meant = "192.0.2.0/24".parse().expect("a range");
    for (line, error) in [
        // Malformed networks.
        ("block network 192.0.2/24", network("192.0.2/24", CidrError::Address)),
        (
            "block network 192.0.2.0/33",
            network("192.0.2.0/33", CidrError::Length { at_most: 32 }),
        ),
        (
            "block network 192.0.2.7/24",
            network("192.0.2.7/24", CidrError::HostBits { meant }),
        ),
        (
            "block network ::ffff:192.0.2.7/120",
            network("::ffff:192.0.2.7/120", CidrError::HostBits { meant }),
        ),
        ("block ip 192.0.2.0/24", value("192.0.2.0/24", "IP address")),
        // Words that mean nothing.
        ("blok ip 192.0.2.7", LineError::Statement("blok".into())),
        ("block adress 192.0.2.7", field("adress")),
        ("block ip 192.0.2.7 192.0.2.8", field("192.0.2.8")),
        ("admit friends", field("friends")),
        ("cap everything 5", field("everything")),
        ("require-knock sometimes", field("sometimes")),
        ("set us trusted", field("trusted")),
        ("refuse-names yes", field("yes")),
        ("end of file", field("of")),
        // Values that are none.
        ("block peer 12D3KooWnobody", value("12D3KooWnobody", "peer id")),
        (
            "block port 65536",
            value("65536", "port from 0 to 65535, or two with a hyphen between them"),
        ),
        (
            "block port 5-4",
            LineError::Rule(RuleError::Ports { first: 5, last: 4 }),
        ),
        (
            "block direction sideways",
            value("sideways", "direction: inbound or outbound"),
        ),
        ("block transport pigeon", value("pigeon", "transport")),
        ("block listener nowhere", value("nowhere", "multiaddr")),
        (
            "block ip 192.0.2.7 until tomorrow",
            value("tomorrow", "time such as 2027-01-31T00:00:00Z"),
        ),
        ("cap total many", value("many", "number of connections")),
        ("cap per-prefix 5 v4 33 v6 48", value("33", "length of a prefix")),
        (
            "rate inbound one-per 0s burst 1 v4 24 v6 48",
            value("0s", "time such as 5s, 200ms or 50us, a day at most"),
        ),
        (
            "rate inbound one-per 5s burst 0 v4 24 v6 48",
            value("0", "number from 1 on"),
        ),
        ("member us 192.0.2.7", value("us", "set of this file")),
        ("set a/b member", LineError::Rule(RuleError::Name("a/b".into()))),
        // Too little, too much.
        ("block", LineError::Nothing),
        ("block note for no reason", LineError::Nothing),
        ("block peer", LineError::Missing("peer")),
        ("cap", LineError::Missing("cap")),
        ("rate inbound one-per 5s", LineError::Missing("burst")),
        ("block ip 192.0.2.7 network 192.0.2.0/24", LineError::Twice("network")),
        ("block everything port 5", field("everything")),
    ] {
        let text = format!("libp2p-gater rules 1\n# a comment\n{line}\nend\n");
        assert_eq!(wrong(text.as_bytes()), (3, error), "{line}");
    }
    for line in ["cap total 5", "admit members", "set us member"] {
        let text = format!("libp2p-gater rules 1\n{line}\n{line}\nend\n");
        assert!(matches!(wrong(text.as_bytes()), (3, LineError::Twice(_))), "{line}");
    }
}

#[test]
fn an_empty_file_is_no_file_of_rules() {
    assert_eq!(wrong(b""), (1, LineError::Header));
    assert_eq!(wrong(b"\n"), (1, LineError::Header));
}

#[test]
fn a_newer_version_is_refused_and_said_to_be_newer() {
    assert_eq!(
        wrong(b"libp2p-gater rules 2\nend\n"),
        (1, LineError::Newer { found: 2 })
    );
    for line in [
        "libp2p-gater rules 0",
        "libp2p-gater rules",
        "libp2p-gater rules one",
        "rules 1",
        "# hello",
    ] {
        assert_eq!(
            wrong(format!("{line}\nend\n").as_bytes()),
            (1, LineError::Header),
            "{line}"
        );
    }
}

/// Wherever it is cut: a file without its end is not half a file of rules.
#[test]
fn a_file_that_was_cut_short_is_refused_wherever_it_was_cut() {
    let whole = format!("libp2p-gater rules 1\nblock peer {PEER}\nblock network 192.0.2.0/24\nend\n");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    // But for the last line break.
    for length in 0..whole.len() - 1 {
        std::fs::write(&path, &whole[..length]).expect("written");
        let error = Rules::load(&path).expect_err(&whole[..length]);
        assert!(matches!(error, FileError::Line { .. }), "{error:?}");
    }
    std::fs::write(&path, &whole).expect("written");
    Rules::load(&path).expect("whole");
}

#[test]
fn what_stands_behind_the_end_is_refused() {
    assert_eq!(
        wrong(b"libp2p-gater rules 1\nend\nblock everything\n"),
        (3, LineError::BehindEnd)
    );
    assert_eq!(wrong(b"libp2p-gater rules 1\nend\nend\n"), (3, LineError::BehindEnd));
}

#[test]
fn what_is_no_text_is_refused() {
    assert_eq!(
        wrong(b"libp2p-gater rules 1\nblock \xff\nend\n"),
        (2, LineError::NotText)
    );
    let long = format!("libp2p-gater rules 1\n# {}\nend\n", "x".repeat(5000));
    assert_eq!(wrong(long.as_bytes()), (2, LineError::NotText));
    let nul = vec![0; 1 << 20];
    assert_eq!(wrong(&nul), (1, LineError::NotText));
}

#[test]
fn too_many_rules_about_one_thing_are_refused_with_the_file_named() {
    let mut text = "libp2p-gater rules 1\n".to_owned();
    for port in 0..65 {
        text += &format!("block network 192.0.2.0/24 port {port}\n");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    std::fs::write(&path, text + "end\n").expect("written");
    let error = Rules::load(&path).expect_err("too many");
    assert!(
        matches!(&error, FileError::Rules { path: named, .. } if *named == path),
        "{error:?}"
    );
}

fn refused_by_the_system(path: &Path) -> ErrorKind {
    let error = Rules::load(path).expect_err("it cannot be read");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    let FileError::Io {
        path: named, source, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(named, path);
    source.kind()
}

#[test]
fn a_directory_is_no_file_of_rules() {
    let directory = tempfile::tempdir().expect("a directory");
    let kind = refused_by_the_system(directory.path());
    // Windows says no at once, and in other words.
    assert!(
        matches!(kind, ErrorKind::IsADirectory | ErrorKind::PermissionDenied),
        "{kind:?}"
    );
    assert!(directory.path().is_dir());
}

#[test]
fn a_file_that_is_not_there_is_an_error_and_not_an_empty_one() {
    let directory = tempfile::tempdir().expect("a directory");
    assert_eq!(
        refused_by_the_system(&directory.path().join("rules")),
        ErrorKind::NotFound
    );
}

/// Root may read everything, so whoever is root looks as somebody else, in a process of his own.
#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    const LOOK: &str = "GATER_TEST_MAY_NOT_READ";
    const NOBODY: u32 = 65_534;

    if let Some(path) = std::env::var_os(LOOK) {
        assert_eq!(refused_by_the_system(Path::new(&path)), ErrorKind::PermissionDenied);
        println!("refused as it should be");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    std::fs::write(&path, "libp2p-gater rules 1\nend\n").expect("written");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    mode(&path, 0o000);
    if std::fs::File::open(&path).is_err() {
        assert_eq!(refused_by_the_system(&path), ErrorKind::PermissionDenied);
        return;
    }
    // Where nobody finds this program may not be, so it gets a copy.
    mode(directory.path(), 0o755);
    let program = directory.path().join("test");
    std::fs::copy(crate::killed::this_program(), &program).expect("copied");
    mode(&program, 0o755);
    let name = "damaged::a_file_that_may_not_be_read_is_refused";
    let output = std::process::Command::new(&program)
        .args(["--exact", name, "--nocapture"])
        .env(LOOK, &path)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("refused as it should be"),
        "{output:?}"
    );
}
