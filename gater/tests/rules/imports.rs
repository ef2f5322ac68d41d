//! Lists of networks as others publish them, and as they are when something is wrong with them.

use crate::asking::{Asking as _, address, cidr, name};
use libp2p_gater::{
    Accept, Cidr, ConnectionGater as _, FileError, Link, ListError, ListFormat, NetworkList, RuleError, Rules,
    Standing, Verdict,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules/samples")
}

/// A file of each kind, its format, its networks, how many entries are passed over, and what it says
/// of an address.
const SAMPLES: &[(&str, ListFormat, &[&str], usize)] = &[
    (
        "kubo-config.json",
        ListFormat::Kubo,
        &[
            "10.0.0.0/8",
            "100.64.0.0/10",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "::/3",
            "fc00::/7",
            "fe80::/10",
        ],
        0,
    ),
    (
        "drop_v4.json",
        ListFormat::JsonLines,
        &["192.0.2.0/24", "198.51.100.0/25"],
        1,
    ),
    ("drop.txt", ListFormat::Plain, &["192.0.2.0/24", "198.51.100.0/25"], 0),
    (
        "level1.netset",
        ListFormat::Plain,
        &["192.0.2.0/24", "198.51.100.7/32", "203.0.113.64/26"],
        0,
    ),
    (
        "level1.p2p",
        ListFormat::PeerGuardian,
        &["192.0.2.0/24", "198.51.100.7/32"],
        0,
    ),
    ("ipfilter.dat", ListFormat::Emule, &["192.0.2.0/24"], 1),
];

fn networks(list: &NetworkList) -> BTreeSet<Cidr> {
    list.iter().collect()
}

fn ranges(texts: &[&str]) -> BTreeSet<Cidr> {
    texts.iter().map(|text| cidr(text)).collect()
}

#[test]
fn every_list_that_people_have_is_read() {
    for (file, format, expected, passed_over) in SAMPLES {
        let path = samples().join(file);
        // Told from the content, and said.
        for said in [None, Some(*format)] {
            let list = NetworkList::from_file(&path, said).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(networks(&list), ranges(expected), "{file}");
            assert_eq!(
                (list.format(), list.passed_over()),
                (Some(*format), *passed_over),
                "{file}"
            );
            assert_eq!(list.path(), Some(&*path));
        }
        // As an editor of another system leaves it.
        let text = std::fs::read_to_string(&path).expect("text");
        let text = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        let list = NetworkList::read(text.as_bytes(), None).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(networks(&list), ranges(expected), "{file}");
        // Put together with itself, the mark in the middle.
        if *format != ListFormat::Kubo {
            let list = NetworkList::read(format!("{text}{text}").as_bytes(), None).expect(file);
            assert_eq!(networks(&list), ranges(expected), "{file}");
        }
    }
}

#[test]
fn a_file_of_rules_as_an_editor_of_another_system_saves_it_is_read() {
    let rules = Rules::load(samples().join("rules-bom.txt")).unwrap_or_else(|error| panic!("{error}"));
    let lines: Vec<String> = rules.list().iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["block network 192.0.2.0/24"]);
}

#[test]
fn an_imported_list_decides_and_a_refusal_names_it() {
    let rules = Rules::new();
    for (file, _, expected, _) in SAMPLES {
        let count = rules
            .import("list", Standing::Blocked, samples().join(file), None)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(count, expected.len());
        for network in ranges(expected) {
            let remote = address(&match network.first() {
                std::net::IpAddr::V4(ip) => format!("/ip4/{ip}/tcp/1"),
                std::net::IpAddr::V6(ip) => format!("/ip6/{ip}/tcp/1"),
            });
            let local = address(crate::asking::LOCAL);
            let verdict = rules.intercept_accept(&Accept::new(Link::inbound(&local, &remote)));
            assert_eq!(name(&verdict), "block_list", "{file}: {remote}");
            let Verdict::Deny(reason) = verdict else {
                unreachable!("it has a name")
            };
            let detail = reason.detail().expect("a detail");
            let line = format!("of import list blocked detect {}", samples().join(file).display());
            assert!(detail.starts_with("network ") && detail.ends_with(&line), "{detail}");
        }
        assert_eq!(rules.accept("/ip4/203.0.113.200/tcp/1"), "pass", "{file}");
    }
    let explained = rules.explain(None, Some(&address("/ip4/192.0.2.9/tcp/1")));
    let explained: Vec<String> = explained.iter().map(ToString::to_string).collect();
    assert!(
        explained
            .iter()
            .any(|line| line.contains("network 192.0.2.0/24 of import list blocked")),
        "{explained:?}"
    );
}

#[test]
fn an_allowed_list_outranks_blocks_and_a_blocked_one_does_not_outrank_allows() {
    let rules = Rules::new();
    let list = |text: &str| [cidr(text)].into_iter().collect::<NetworkList>();
    rules
        .change(|change| {
            change.block(cidr("192.0.2.0/24"))?;
            change.list("ours", Standing::Allowed, list("192.0.2.128/25"))?;
            change.list("theirs", Standing::Blocked, list("192.0.2.192/26"))?;
            change.list("more", Standing::Blocked, list("198.51.100.0/24"))
        })
        .expect("changed");
    assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1"), "block_network");
    assert_eq!(rules.accept("/ip4/192.0.2.200/tcp/1"), "allow");
    assert_eq!(rules.accept("/ip4/198.51.100.7/tcp/1"), "block_list");
    assert_eq!(rules.accept("/ip6/64:ff9b::198.51.100.7/tcp/1"), "block_list");
    assert_eq!(rules.accept("/ip6/64:ff9b::192.0.2.200/tcp/1"), "block_network");
    let refused = rules.change(|change| change.list("x", Standing::Member, list("192.0.2.0/24")));
    assert!(matches!(refused, Err(RuleError::Members)));
    rules
        .change(|change| {
            change.remove_list("ours");
            Ok(())
        })
        .expect("changed");
    assert_eq!(rules.accept("/ip4/192.0.2.200/tcp/1"), "block_network");
    assert_eq!(rules.lists().len(), 2);
    let many = rules.change(|change| {
        (0..20).try_for_each(|n| change.list(&n.to_string(), Standing::Blocked, list("192.0.2.0/24")))
    });
    assert!(matches!(many, Err(RuleError::TooMany { at_most: 16, .. })));
    assert_eq!(rules.lists().len(), 2);
}

#[test]
fn a_file_of_rules_imports_lists_and_keeps_saying_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    for (file, ..) in SAMPLES {
        std::fs::copy(samples().join(file), directory.path().join(file)).expect("copied");
    }
    let text = "libp2p-gater rules 1
import kubo allowed kubo kubo-config.json # what our nodes have
import drop blocked detect drop_v4.json
import level1 blocked plain level1.netset
list ours blocked
range ours 203.0.113.0-203.0.113.9 203.0.113.128/25
";
    std::fs::write(&path, text).expect("written");
    let rules = Rules::load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(rules.accept("/ip4/10.1.2.3/tcp/1"), "allow");
    for blocked in [
        "192.0.2.7",
        "198.51.100.7",
        "203.0.113.70",
        "203.0.113.9",
        "203.0.113.129",
    ] {
        assert_eq!(
            rules.accept(&format!("/ip4/{blocked}/tcp/1")),
            "block_list",
            "{blocked}"
        );
    }
    assert_eq!(rules.accept("/ip4/203.0.113.10/tcp/1"), "pass");
    // Paths stay relative, and lists stay in their files.
    rules.save(&path).expect("saved");
    let saved = std::fs::read_to_string(&path).expect("text");
    let expected = "libp2p-gater rules 1 until end
import drop blocked detect drop_v4.json
import kubo allowed kubo kubo-config.json
import level1 blocked plain level1.netset
list ours blocked
range ours 203.0.113.0/29 203.0.113.8/31 203.0.113.128/25
end
";
    assert_eq!(saved, expected);
    // Saved elsewhere they lead to the same files.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let other = elsewhere.path().join("rules");
    rules.save(&other).expect("saved");
    let again = Rules::load(&other).unwrap_or_else(|error| panic!("{error}"));
    let content = |rules: &Rules| -> Vec<_> {
        let lists = rules.lists().into_iter();
        lists
            .map(|(name, standing, list)| (name, standing, networks(&list)))
            .collect()
    };
    assert_eq!(content(&again), content(&rules));
    // A list that cannot be had is an error that names both lines.
    std::fs::write(directory.path().join("drop_v4.json"), "{\"cidr\":\"192.0.2.7/24\"}\n").expect("written");
    let error = rules.reload(&path).expect_err("no list");
    assert!(matches!(&error, FileError::Import { line: 2, .. }), "{error:?}");
    let drop = directory.path().join("drop_v4.json");
    assert_eq!(
        error.to_string(),
        format!(
            "{}, line 2: {}, line 1: found `192.0.2.7/24`, expected {}; did you mean `192.0.2.0/24`?",
            path.display(),
            drop.display(),
            "`192.0.2.0/24`, `192.0.2.7`, `192.0.2.0-192.0.2.255` or `/ip4/192.0.2.0/ipcidr/24`",
        )
    );
    assert_eq!(
        rules.accept("/ip4/192.0.2.7/tcp/1"),
        "block_list",
        "what was there is still there"
    );
    std::fs::remove_file(&drop).expect("removed");
    let error = rules.reload(&path).expect_err("no file").to_string();
    let begins = format!("{}, line 2: {}: cannot open it: ", path.display(), drop.display());
    assert!(error.starts_with(&begins) && error.contains("os error 2"), "{error}");
}

#[test]
fn lists_are_read_again_each_as_a_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    std::fs::write(&one, "192.0.2.0/24\n").expect("written");
    std::fs::write(&two, "198.51.100.0/24\n").expect("written");
    let rules = Rules::new();
    for path in [&one, &two] {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        rules.import(name, Standing::Blocked, path, None).expect("imported");
    }
    let bell = rules.changes().pop().expect("a bell");
    let before = bell.count();
    assert!(rules.reload_lists().iter().all(|(_, result)| matches!(result, Ok(1))));
    assert_eq!(bell.count(), before, "the same lists are no change");
    std::fs::write(&one, "203.0.113.0/24\n203.0.112.0/24\n").expect("written");
    std::fs::write(&two, "198.51.100.0/24\nhalf a li").expect("written");
    let results = rules.reload_lists();
    assert!(matches!(&results[0], (name, Ok(2)) if name == "one"), "{results:?}");
    let said = match &results[1] {
        (name, Err(error)) if name == "two" => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(
        said.starts_with(&format!("{}, line 2: found `half a li`, expected ", two.display())),
        "{said}"
    );
    let blocked = |ip: &str| rules.accept(&format!("/ip4/{ip}/tcp/1")) == "block_list";
    assert!(blocked("203.0.113.7") && !blocked("192.0.2.7") && blocked("198.51.100.7"));
}

/// Each text in its format, the line at fault, what was found, and what was meant.
#[test]
fn a_malformed_list_names_its_file_its_line_and_what_was_meant() {
    use ListFormat::{Emule, JsonLines, Kubo, PeerGuardian, Plain};
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("list");
    for (format, text, line, found, meant) in [
        (
            Plain,
            "# a list\n192.0.2.7/24\n",
            2,
            "`192.0.2.7/24`",
            Some("192.0.2.0/24"),
        ),
        (
            Plain,
            "192.0.2.0/24\n192.0.2.0/255.255.255.0\n",
            2,
            "`192.0.2.0/255.255.255.0`",
            Some("192.0.2.0/24"),
        ),
        (
            Plain,
            "192.0.2.9-192.0.2.0 # no order\n",
            1,
            "`192.0.2.9-192.0.2.0",
            Some("192.0.2.0-192.0.2.9"),
        ),
        (Plain, "192.0.2.*\n", 1, "`192.0.2.*`", Some("192.0.2.0/24")),
        (Plain, "192.000.002.007\n", 1, "`192.000.002.007`", Some("192.0.2.7")),
        (
            Plain,
            "192.0.2.0/24 198.51.100.0/24\n",
            1,
            "`192.0.2.0/24 198.51.100.0/24`",
            None,
        ),
        (Plain, "192.0.2.0/33\n", 1, "`192.0.2.0/33`", None),
        (Plain, "example.org\n", 1, "`example.org`", None),
        (
            Plain,
            "/ip4/10.1.0.0/ipcidr/8\n",
            1,
            "`/ip4/10.1.0.0/ipcidr/8`",
            Some("10.0.0.0/8"),
        ),
        (Plain, "192.0.2.0-2001:db8::\n", 1, "`192.0.2.0-2001:db8::`", None),
        (
            PeerGuardian,
            "A:192.0.2.0-192.0.2.9\nB:192.0.2.9-192.0.2.0\n",
            2,
            "`B:192.0.2.9-192.0.2.0`",
            Some("B:192.0.2.0-192.0.2.9"),
        ),
        (
            PeerGuardian,
            "A:192.0.2.0-192.0.2.256\n",
            1,
            "`A:192.0.2.0-192.0.2.256`",
            None,
        ),
        (PeerGuardian, "A:192.0.2.0\n", 1, "`A:192.0.2.0`", None),
        (
            Emule,
            "192.000.002.009 - 192.000.002.000 , 100 , x\n",
            1,
            "`192.000.002.009 - 192.000.002.000 , 100 , x`",
            Some("192.0.2.0-192.0.2.9"),
        ),
        (
            Emule,
            "192.000.002.000 , 100 , x\n",
            1,
            "`192.000.002.000 , 100 , x`",
            None,
        ),
        (
            JsonLines,
            "{\"cidr\":\"192.0.2.0/24\"}\n{\"cidr\":\"198.51.100.1/25\"}\n",
            2,
            "`198.51.100.1/25`",
            Some("198.51.100.0/25"),
        ),
        (JsonLines, "{\"asn\":64496}\n", 1, "`{\"asn\":64496}`", None),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = NetworkList::from_file(&path, format).expect_err(text);
        let said = error.to_string();
        let begins = format!("{}, line {line}: found {found}", path.display());
        assert!(said.starts_with(&begins) && said.contains(", expected "), "{said}");
        match meant {
            Some(meant) => assert!(said.ends_with(&format!("; did you mean `{meant}`?")), "{said}"),
            None => assert!(!said.contains("did you mean"), "{said}"),
        }
    }
    // JSON that is none has a column as well.
    for (format, text, line, problem) in [
        (
            JsonLines,
            "{\"cidr\":\"192.0.2.0/24\"}\n{\"cidr\":\"198.\n",
            2,
            "EOF while parsing a string",
        ),
        (JsonLines, "{\"cidr\":5}\n", 1, "invalid type: integer `5`"),
        (
            Kubo,
            "{\n  \"Swarm\": {\n    \"AddrFilters\": [\"/ip4/10.0.0.0/8\"]\n  }\n}\n",
            3,
            "invalid filter `/ip4/10.0.0.0/8`",
        ),
        (Kubo, "{\n  \"Swarm\": {\n", 3, "EOF while parsing an object"),
        (
            Kubo,
            "[\"/ip4/10.1.0.0/ipcidr/8\"]",
            1,
            "bits are set behind the prefix: expected 10.0.0.0/8",
        ),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = NetworkList::from_file(&path, format).expect_err(text);
        assert!(
            matches!(&error, FileError::List { error, .. } if error.line() == Some(line)),
            "{error}"
        );
        let said = error.to_string();
        assert!(
            said.starts_with(&format!("{}, line {line}, column ", path.display())),
            "{said}"
        );
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn what_is_no_list_is_said_to_be_what_it_is() {
    let no_list = |bytes: &[u8]| NetworkList::read(bytes, None).expect_err("no list").to_string();
    for (bytes, said) in [
        (
            &b"\x1f\x8b\x08\0"[..],
            "found a file packed by gzip, expected a list of text: unpack it first",
        ),
        (
            b"PK\x03\x04",
            "found a ZIP archive, expected a list of text: unpack it first",
        ),
        (
            b"\xff\xff\xff\xffP2B\x02",
            "found a binary list of PeerGuardian, expected its form as text, P2P",
        ),
        (b"\xff\xfe1\x009\x002\0", "found UTF-16, expected UTF-8"),
        (
            b"<!DOCTYPE html>",
            "found a page of HTML, expected a list: did a download fail?",
        ),
        (b"", "no network in it, as `plain`: expected at least one"),
        (b"# level1\n#\n", "no network in it, as `plain`: expected at least one"),
        (
            b"{\"Swarm\":{\"AddrFilters\":null}}",
            "no network in it, as `kubo`: expected at least one",
        ),
        (
            b"{\"cidr\":\"192.0.2.0/24\"}\n{\"type\":\"metadata\",\"records\":2}\n",
            "its metadata says that it has 2 entries, found 1: was it cut short?",
        ),
    ] {
        assert_eq!(no_list(bytes), said);
    }
    let long = [b"192.0.2.0/24\n".to_vec(), vec![b'1'; 5000]].concat();
    assert_eq!(no_list(&long), "line 2: expected at most 4096 bytes a line");
    // A list in another format than it was said to have.
    let error = NetworkList::read(&b"A:192.0.2.0-192.0.2.9\n"[..], ListFormat::Emule).expect_err("no eMule");
    assert!(
        error
            .to_string()
            .contains("in a list that is `p2p` it would be an entry"),
        "{error}"
    );
    let directory = tempfile::tempdir().expect("a directory");
    let missing = NetworkList::from_file(directory.path().join("none"), None).expect_err("not there");
    let begins = format!("{}: cannot open it: ", directory.path().join("none").display());
    assert!(missing.to_string().starts_with(&begins), "{missing}");
    assert!(matches!(&missing, FileError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    let directory = NetworkList::from_file(directory.path(), None).expect_err("a directory");
    assert!(matches!(directory, FileError::Io { .. }), "{directory}");
}

/// Names in any encoding, IPv6, ranges that are several networks, a list without levels.
#[test]
fn the_odd_entries_of_real_lists_are_read() {
    for (text, format, expected) in [
        (&b"caf\xe9: the \"west\":192.0.2.0-192.0.2.2\n"[..], ListFormat::PeerGuardian, &["192.0.2.0/31", "192.0.2.2/32"][..]),
        (b"A-B (1-2):001.002.003.000-001.002.003.255\n", ListFormat::PeerGuardian, &["1.2.3.0/24"]),
        (b"192.0.2.0-192.0.2.130\n2001:db8::/32\n2001:db9::1-2001:db9::2\n", ListFormat::Plain, &["192.0.2.0/25", "192.0.2.128/31", "192.0.2.130/32", "2001:db8::/32", "2001:db9::1/128", "2001:db9::2/128"]),
        (b"192.0.2.0 - 192.0.2.255 , 127 , last blocked\n198.51.100.0 - 198.51.100.255 , 128 , first allowed\n203.0.113.0 - 203.0.113.255\n", ListFormat::Emule, &["192.0.2.0/24", "203.0.113.0/24"]),
        (b"// eMule\n192.0.2.0, 192.0.2.255, 000, bluetack\n", ListFormat::Emule, &["192.0.2.0/24"]),
        (b"[\"/ip4/10.0.0.0/ipcidr/8\",\"/ip6/fc00::/ipcidr/7\"]", ListFormat::Kubo, &["10.0.0.0/8", "fc00::/7"]),
        (b"/ip4/10.0.0.0/ipcidr/8\n/ip6/fc00::/ipcidr/7\n", ListFormat::Plain, &["10.0.0.0/8", "fc00::/7"]),
        (b"{\"type\":\"metadata\",\"records\":1}\n{\"cidr\":\"2001:db8::/32\",\"sblid\":\"SBL000003\"}\n", ListFormat::JsonLines, &["2001:db8::/32"]),
    ] {
        let shown = String::from_utf8_lossy(text);
        let list = NetworkList::read(text, None).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(list.format(), Some(format), "{shown}");
        assert_eq!(networks(&list), ranges(expected), "{shown}");
    }
}

#[test]
fn a_path_that_no_file_of_rules_could_hold_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = Rules::new();
    for file in ["a #list", " list", "li\nst"] {
        let path = directory.path().join(file);
        std::fs::write(&path, "192.0.2.0/24\n").expect("written");
        let refused = rules.import("x", Standing::Blocked, &path, None);
        let refuses = matches!(
            refused,
            Err(FileError::Rules {
                error: RuleError::Path(_),
                ..
            })
        );
        // In front of the space stands the directory.
        assert_eq!(refuses, file != " list", "{file:?}");
    }
}

/// Networks that cannot be joined, as a line of each format that has lines.
fn line(format: ListFormat, n: u32) -> String {
    let first = std::net::Ipv4Addr::from_bits(n << 8);
    let last = std::net::Ipv4Addr::from_bits(n << 8 | 127);
    match format {
        ListFormat::Plain => format!("{first}/25\n"),
        ListFormat::JsonLines => format!("{{\"cidr\":\"{first}/25\",\"sblid\":\"SBL{n}\",\"rir\":\"test\"}}\n"),
        ListFormat::PeerGuardian => format!("Net {n}: of some name:{first}-{last}\n"),
        _ => format!("{first} - {last} , 100 , Net {n}\n"),
    }
}

/// A million as the format of most lists and as rules, some of the others: `GATER_TEST_LINES` is for
/// all. The bound is that of a debug build on a machine with other work.
#[test]
fn a_long_list_is_read_to_its_last_line() {
    let lines = |usual| std::env::var("GATER_TEST_LINES").map_or(usual, |lines| lines.parse().expect("a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("list");
    let rules = Rules::new();
    for format in [
        ListFormat::Plain,
        ListFormat::JsonLines,
        ListFormat::PeerGuardian,
        ListFormat::Emule,
    ] {
        let lines = lines(if format == ListFormat::Plain {
            1_000_000
        } else {
            100_000
        });
        let text: String = (0..lines).map(|n| line(format, n)).collect();
        std::fs::write(&path, text).expect("written");
        let begun = Instant::now();
        let count = rules.import("long", Standing::Blocked, &path, None);
        let took = begun.elapsed();
        assert_eq!(
            count.unwrap_or_else(|error| panic!("{error}")),
            lines as usize,
            "{format}"
        );
        println!("{lines} lines as {format}: {took:?}");
        assert!(took < Duration::from_secs(30), "{format}: {took:?}");
        let last = std::net::Ipv4Addr::from_bits((lines - 1) << 8 | 127);
        assert_eq!(rules.accept(&format!("/ip4/{last}/tcp/1")), "block_list");
        let beyond = std::net::Ipv4Addr::from_bits((lines - 1) << 8 | 128);
        assert_eq!(rules.accept(&format!("/ip4/{beyond}/tcp/1")), "pass");
    }
    // As rules in a file of rules.
    let lines = lines(1_000_000);
    let mut text = "libp2p-gater rules 1\n".to_owned();
    for n in 0..lines {
        text += "block network ";
        text += &line(ListFormat::Plain, n);
    }
    std::fs::write(&path, text).expect("written");
    let begun = Instant::now();
    rules.reload(&path).unwrap_or_else(|error| panic!("{error}"));
    let took = begun.elapsed();
    println!("{lines} lines of rules: {took:?}");
    assert_eq!(rules.list().len(), lines as usize);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_list_of_too_many_networks_is_refused_in_the_line_that_has_them() {
    let most = 1 << 22;
    // Each line is 62 networks.
    let text = "0.0.0.1-255.255.255.254\n".repeat(most / 62 + 1);
    let error = NetworkList::read(text.as_bytes(), None).expect_err("too many");
    assert!(
        matches!(error, ListError::TooMany { line } if line == most / 62 + 1),
        "{error}"
    );
}
