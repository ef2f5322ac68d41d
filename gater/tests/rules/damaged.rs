//! Files that are no rules: each is refused with its name and the line, and left as it is.

use libp2p_gater::{FileError, LineError, Rules};
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

/// The rules that `text` is as a file.
fn load(text: &[u8]) -> Rules {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    std::fs::write(&path, text).expect("written");
    Rules::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// Each with what its error says, which is the line that was meant where one can be guessed.
#[test]
fn a_line_that_cannot_be_understood_is_named_with_what_was_meant() {
    let peer = format!("block {PEER}");
    let peer_meant = format!("unknown field `{PEER}`; did you mean `block peer {PEER}`?");
    let address = format!("block peer /ip4/192.0.2.7/tcp/4001/p2p/{PEER}");
    let address_meant = format!(
        "invalid value `/ip4/192.0.2.7/tcp/4001/p2p/{PEER}`: expected a peer id; \
         did you mean `block peer {PEER} ip 192.0.2.7 port 4001`?"
    );
    for (line, said) in [
        (
            "block network 192.0.2/24",
            "invalid network `192.0.2/24`: expected a network such as 192.0.2.0/24",
        ),
        (
            "block network 192.0.2.0/33",
            "invalid network `192.0.2.0/33`: expected a prefix length from 0 to 32",
        ),
        (
            "block network 192.0.2.7/24",
            "invalid network `192.0.2.7/24`: bits are set behind the prefix: expected 192.0.2.0/24; did you mean `block network 192.0.2.0/24`?",
        ),
        (
            "block network ::ffff:192.0.2.7/120",
            "invalid network `::ffff:192.0.2.7/120`: bits are set behind the prefix: expected 192.0.2.0/24; did you mean `block network 192.0.2.0/24`?",
        ),
        (
            "block ip 192.0.2.0/24",
            "invalid value `192.0.2.0/24`: expected an IP address; did you mean `block network 192.0.2.0/24`?",
        ),
        (
            "block network 10.0.0.0/255.0.0.0",
            "invalid network `10.0.0.0/255.0.0.0`: expected a prefix length from 0 to 32; did you mean `block network 10.0.0.0/8`?",
        ),
        (
            "block network 10.0.0.0-10.255.255.255",
            "invalid network `10.0.0.0-10.255.255.255`: expected a network such as 192.0.2.0/24; did you mean `block network 10.0.0.0/8`?",
        ),
        (
            "block 10.0.0.0/24",
            "unknown field `10.0.0.0/24`; did you mean `block network 10.0.0.0/24`?",
        ),
        (
            "block 10.0.0.1",
            "unknown field `10.0.0.1`; did you mean `block ip 10.0.0.1`?",
        ),
        (
            "block 10.0.0.5/24",
            "unknown field `10.0.0.5/24`; did you mean `block network 10.0.0.0/24`?",
        ),
        (
            "block 2001:db8::/32",
            "unknown field `2001:db8::/32`; did you mean `block network 2001:db8::/32`?",
        ),
        (
            "block /ip4/10.0.0.0/ipcidr/8",
            "unknown field `/ip4/10.0.0.0/ipcidr/8`; did you mean `block network 10.0.0.0/8`?",
        ),
        (
            "10.0.0.0/24",
            "unknown statement `10.0.0.0/24`; did you mean `block network 10.0.0.0/24`?",
        ),
        (
            "block network /ip4/10.0.0.0/8",
            "invalid network `/ip4/10.0.0.0/8`: expected a filter such as /ip4/192.0.2.0/ipcidr/24",
        ),
        (
            "blok ip 192.0.2.7",
            "unknown statement `blok`; did you mean `block ip 192.0.2.7`?",
        ),
        (
            "deny from 192.0.2.0/24",
            "unknown statement `deny`; did you mean `block network 192.0.2.0/24`?",
        ),
        (
            "drop subnet 192.0.2.0/24",
            "unknown statement `drop`; did you mean `block network 192.0.2.0/24`?",
        ),
        (
            "Block network 192.0.2.0/24",
            "unknown statement `Block`; did you mean `block network 192.0.2.0/24`?",
        ),
        ("block adress 192.0.2.7", "unknown field `adress`"),
        ("block ip 192.0.2.7 192.0.2.8", "unknown field `192.0.2.8`"),
        ("block 4001", "unknown field `4001`; did you mean `block port 4001`?"),
        ("block in", "unknown field `in`"),
        (
            "admit friends",
            "invalid value `friends`: expected `everyone`, `members` or `known-addresses`",
        ),
        (
            "admit everybody",
            "invalid value `everybody`: expected `everyone`, `members` or `known-addresses`; did you mean `admit everyone`?",
        ),
        (
            "cap everything 5",
            "invalid value `everything`: expected `total`, `inbound`, `outbound`, `pending-inbound`, `pending-outbound`, `per-peer`, `per-ip`, `per-prefix` or `transport`",
        ),
        (
            "cap totl 5",
            "invalid value `totl`: expected `total`, `inbound`, `outbound`, `pending-inbound`, `pending-outbound`, `per-peer`, `per-ip`, `per-prefix` or `transport`; did you mean `cap total 5`?",
        ),
        (
            "require-knock sometimes",
            "invalid value `sometimes`: expected `everybody` or `peer`",
        ),
        (
            "set us trusted",
            "invalid value `trusted`: expected `allowed`, `blocked` or `member`; did you mean `set us allowed`?",
        ),
        ("refuse-names yes", "unknown field `yes`"),
        ("end of file", "unknown field `of`"),
        (
            "block peer 12D3KooWnobody",
            "invalid value `12D3KooWnobody`: expected a peer id",
        ),
        (
            "block port 65536",
            "invalid value `65536`: expected a port from 0 to 65535, or two with a hyphen between them",
        ),
        ("block port 5-4", "5 to 4 holds no port"),
        (
            "block direction sideways",
            "invalid value `sideways`: expected `inbound` or `outbound`",
        ),
        (
            "block direction in",
            "invalid value `in`: expected `inbound` or `outbound`; did you mean `block direction inbound`?",
        ),
        (
            "block transport pigeon",
            "invalid value `pigeon`: expected a transport: knock, tcp, quic, websocket, webtransport, webrtc, relayed, memory or other",
        ),
        (
            "block transport websockets",
            "invalid value `websockets`: expected a transport: knock, tcp, quic, websocket, webtransport, webrtc, relayed, memory or other; did you mean `block transport websocket`?",
        ),
        (
            "block listener nowhere",
            "invalid value `nowhere`: expected a multiaddr",
        ),
        (
            "block ip 192.0.2.7 until tomorrow",
            "invalid value `tomorrow`: expected a time such as 2027-01-31T00:00:00Z",
        ),
        (
            "block ip 192.0.2.7 until 2027-01-31",
            "invalid value `2027-01-31`: expected a time such as 2027-01-31T00:00:00Z; did you mean `block ip 192.0.2.7 until 2027-01-31T00:00:00Z`?",
        ),
        (
            "cap total many",
            "invalid value `many`: expected a number of connections",
        ),
        (
            "cap per-prefix 5 v4 33 v6 48",
            "invalid value `33`: expected a prefix length",
        ),
        (
            "rate inbound one-per 0s burst 1 v4 24 v6 48",
            "invalid value `0s`: expected a time such as 5s, 200ms or 50us, a day at most",
        ),
        (
            "rate inbound one-per 5s burst 0 v4 24 v6 48",
            "invalid value `0`: expected a number from 1 on",
        ),
        ("member us 192.0.2.7", "invalid value `us`: expected a set of this file"),
        (
            "range us 192.0.2.0/24",
            "invalid value `us`: expected a list of this file that is no import",
        ),
        (
            "set a/b member",
            "invalid name `a/b`: expected 1 to 64 letters, digits, `.`, `_` or `-`",
        ),
        (
            "list us member",
            "a list of networks cannot be `member`: expected `allowed` or `blocked`",
        ),
        (
            "import us blocked netset /etc/level1.netset",
            "invalid value `netset`: expected a format: detect, plain, json-lines, kubo, p2p or emule",
        ),
        (
            "block",
            "the rule has no subject: use `everything` to match all connections",
        ),
        (
            "block note for no reason",
            "the rule has no subject: use `everything` to match all connections",
        ),
        ("block peer", "expected a value behind `peer`"),
        ("cap", "expected a value behind `cap`"),
        ("rate inbound one-per 5s", "expected a value behind `burst`"),
        (
            "block ip 192.0.2.7 network 192.0.2.0/24",
            "`network` is said twice: expected it once",
        ),
        ("block everything port 5", "unknown field `everything`"),
        (peer.as_str(), peer_meant.as_str()),
        (address.as_str(), address_meant.as_str()),
    ] {
        let text = format!("libp2p-gater rules 1\n# a comment\n{line}\nend\n");
        let (at, error) = wrong(text.as_bytes());
        assert_eq!((at, error.to_string().as_str()), (3, said), "{line}");
        // What was meant is a line that can be read.
        if let Some((_, meant)) = said.split_once("did you mean `") {
            let meant = meant.trim_end_matches("`?");
            load(format!("libp2p-gater rules 1\n{meant}\n").as_bytes());
        }
    }
    for line in [
        "cap total 5",
        "cap per-prefix 5 v4 24 v6 48",
        "admit members",
        "set us member",
    ] {
        let text = format!("libp2p-gater rules 1\n{line}\n{line}\nend\n");
        assert!(matches!(wrong(text.as_bytes()), (3, LineError::Twice(_))), "{line}");
    }
}

/// What stands above a line, the line, and the line that was meant where that would be right.
#[test]
fn what_was_meant_is_never_another_error() {
    let import = "import drop blocked detect a.txt\n";
    let sets: String = (0..64).map(|n| format!("set s{n} allowed\n")).collect();
    let lists: String = (0..16).map(|n| format!("list l{n} allowed\n")).collect();
    let ports: String = (0..256).map(|port| format!("block port {port}\n")).collect();
    let peers: String = (0..64).map(|port| format!("block peer {PEER} port {port}\n")).collect();
    let rate = "rate inbound one-per 5s burst 1 v4 24 v6 48\n";
    let spaces = " ".repeat(4000);
    let long = format!(
        "deny from 10.0.0.1 # {}",
        "x".repeat(4096 - "deny from 10.0.0.1 # ".len())
    );
    let short = format!("deny from 10.0.0.1 {spaces}# x");
    for (above, line, meant) in [
        (
            "",
            "import drop blockd detect b.txt",
            Some("import drop blocked detect b.txt"),
        ),
        (import, "import drop blockd detect b.txt", None),
        (import, "include drop blocked detect b.txt", None),
        (import, "list drop blockd", None),
        (
            import,
            "import more blockd detect b.txt",
            Some("import more blocked detect b.txt"),
        ),
        ("list drop blocked\n", "import drop blockd detect b.txt", None),
        ("admit members\n", "admit evryone", None),
        ("", "admit evryone", Some("admit everyone")),
        ("cap total 5\n", "cap totl 6", None),
        ("cap total 5\n", "cap inbund 6", Some("cap inbound 6")),
        ("cap transport tcp 5\n", "cap transport tpc 6", None),
        (&sets, "set us trusted", None),
        (&sets, "member s0 trusted", None),
        (&lists, "list us trusted", None),
        (&lists, "include us blocked detect b.txt", None),
        (&ports, "deny port 300", None),
        (&ports, "deny port 7", Some("block port 7")),
        (&peers, &format!("deny peer {PEER} port 64"), None),
        (&rate.repeat(16), "rate in one-per 5s burst 1 v4 24 v6 48", None),
        (
            &rate.repeat(15),
            "rate in one-per 5s burst 1 v4 24 v6 48",
            Some(rate.trim()),
        ),
        ("", &long, None),
        ("", &short, Some("block ip 10.0.0.1 # x")),
        // The line itself has changed nothing.
        ("", "admit members from", Some("admit members")),
        ("", "cap total 5 from", Some("cap total 5")),
        (
            "",
            "cap per-prefix 5 v4 24 v6 48 from",
            Some("cap per-prefix 5 v4 24 v6 48"),
        ),
        ("", "set us member from", Some("set us member")),
        ("", "list us blocked from", Some("list us blocked")),
    ] {
        let text = format!("libp2p-gater rules 1\n{above}{line}\n");
        let (at, error) = wrong(text.as_bytes());
        assert_eq!(at, above.lines().count() + 2, "{line}: {error}");
        let said = error.to_string();
        let found = said
            .split_once("; did you mean `")
            .map(|(_, meant)| meant.trim_end_matches("`?"));
        assert_eq!(found, meant, "{line}: {said}");
    }
    // One rate too many is found in its line.
    let (at, error) = wrong(format!("libp2p-gater rules 1\n{}end\n", rate.repeat(17)).as_bytes());
    assert_eq!((at, error.to_string().as_str()), (18, "more than 16 rates"));
}

fn header(found: &str) -> LineError {
    LineError::Header {
        found: found.to_owned(),
    }
}

#[test]
fn an_empty_file_is_no_file_of_rules() {
    for text in ["", "\n", "\u{feff}", "\u{feff}\r\n# a comment\r\n"] {
        let (_, error) = wrong(text.as_bytes());
        assert_eq!(error, header(""), "{text:?}");
    }
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
        "block everything",
        "libp2p-gater rules 1 until",
        "libp2p-gater rules 1 to end",
    ] {
        assert_eq!(wrong(format!("{line}\nend\n").as_bytes()), (1, header(line)), "{line}");
    }
    // Comments may stand above.
    assert_eq!(wrong(b"# hello\nend\n"), (2, header("end")));
}

/// Wherever it is cut: a file that is to have an end is none without it.
#[test]
fn a_file_that_was_cut_short_is_refused_wherever_it_was_cut() {
    let whole = format!("libp2p-gater rules 1 until end\nblock peer {PEER}\nblock network 192.0.2.0/24\nend\n");
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

/// As people write it: where it is cut in a line, that is seen.
#[test]
fn a_file_written_by_hand_needs_no_end_but_a_whole_last_line() {
    let whole = "libp2p-gater rules 1\nblock network 192.0.2.0/24\nblock port 25\n";
    for length in 0..=whole.len() {
        let lines = whole[..length].lines().count();
        match whole[..length].ends_with('\n') {
            true => assert_eq!(load(&whole.as_bytes()[..length]).list().len(), lines - 1),
            false => drop(wrong(&whole.as_bytes()[..length])),
        }
    }
    let end = load(b"libp2p-gater rules 1\nblock port 25\nend");
    assert_eq!(end.list().len(), 1);
}

#[test]
fn a_byte_order_mark_and_comments_may_stand_anywhere() {
    let text = "\u{feff}# office rules\r\n\r\nlibp2p-gater rules 1 # ours\r\n# the lab\r\n\
                \tblock network 192.0.2.0/24 # moved in spring\r\n\
                \u{feff}block port 25 #\r\n  # indented\r\nset us member #none yet\r\n\
                block ip 203.0.113.9 note room #4 # and more\r\nend # really\r\n# after\r\n";
    let rules = load(text.as_bytes());
    let mut lines: Vec<String> = rules.list().iter().map(ToString::to_string).collect();
    lines.sort();
    // A note has the rest of its line.
    let expected = [
        "block ip 203.0.113.9 note room #4 # and more",
        "block network 192.0.2.0/24",
        "block port 25",
    ];
    assert_eq!(lines, expected);
    assert_eq!(rules.sets().len(), 1);
}

#[test]
fn a_file_in_utf_16_is_said_to_be_one() {
    for order in [u16::to_le_bytes, u16::to_be_bytes] {
        let units = "\u{feff}libp2p-gater rules 1\r\nend\r\n".encode_utf16();
        let bytes: Vec<u8> = units.flat_map(order).collect();
        assert_eq!(wrong(&bytes), (1, LineError::Utf16));
    }
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

/// With either end, in the middle and as the last line.
#[test]
fn a_line_may_have_4096_bytes_however_it_ends() {
    let note = |bytes: usize| {
        let rule = "block ip 192.0.2.7 note ";
        format!("{rule}{}", "x".repeat(bytes - rule.len()))
    };
    for end in ["\n", "\r\n"] {
        for behind in ["", "end\n", "block port 25\n"] {
            let text = |bytes| format!("libp2p-gater rules 1{end}{}{end}{behind}", note(bytes));
            let rules = load(text(4096).as_bytes());
            let whole = rules.list().iter().any(|rule| rule.to_string() == note(4096));
            assert!(whole, "{end:?}, {behind:?}");
            for bytes in [4097, 4098, 4099, 10_000] {
                let refused = wrong(text(bytes).as_bytes());
                assert_eq!(refused, (2, LineError::NotText), "{bytes}, {end:?}, {behind:?}");
            }
        }
    }
    // Within the line, a return is no end of it.
    let text = format!("libp2p-gater rules 1\n{}\rblock port 25\n", note(4096));
    assert_eq!(wrong(text.as_bytes()), (2, LineError::NotText));
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
    let shown = error.to_string();
    assert!(shown.starts_with(&format!("{}: cannot ", path.display())), "{shown}");
    // Once, in the text: a chain of causes adds nothing.
    assert!(std::error::Error::source(&error).is_none());
    let FileError::Io {
        path: named, source, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(named, path);
    assert!(shown.ends_with(&source.to_string()), "{shown}");
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
