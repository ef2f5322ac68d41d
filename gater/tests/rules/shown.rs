//! What files say, in messages: nothing of it reaches a terminal that a terminal obeys.

use libp2p_gater::{FileError, ListFormat, NetworkList, Rule, RuleError, Rules, Standing};
use std::fmt::Display;
use std::path::Path;

/// Colours, the title of a window, the C1 form of both, the direction of a text, the end of a line.
const OBEYED: &[char] = &[
    '\u{1b}', '\u{7}', '\u{7f}', '\u{9b}', '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}',
    '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

/// `error` has `c` escaped, and has no other such character.
fn is_escaped(error: impl Display, c: char) {
    let said = error.to_string();
    let escaped = c.escape_default().to_string();
    assert!(said.contains(&escaped), "{escaped}: {said:?}");
    let obeyed = |c: char| c.is_control() || OBEYED.contains(&c);
    assert!(!said.contains(obeyed), "{said:?}");
}

#[test]
fn what_a_list_says_is_escaped_where_it_is_found_and_where_it_was_meant() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("list");
    for c in OBEYED {
        for (format, text) in [
            (ListFormat::PeerGuardian, format!("A{c}[2J:192.0.2.9-192.0.2.0\n")),
            (
                ListFormat::PeerGuardian,
                format!("{}{c}:192.0.2.9-192.0.2.0\n", "A".repeat(3000)),
            ),
            (ListFormat::Plain, format!("192.0.2.{c}\n")),
            (ListFormat::Emule, format!("192.0.2.9{c} - 192.0.2.0 , 100 , x\n")),
            (
                ListFormat::JsonLines,
                format!("{{\"asn\":\"{}\"}}\n", c.escape_default()),
            ),
            (
                ListFormat::JsonLines,
                format!("{{\"cidr\":\"192.0.2.0{}\"}}\n", json(*c)),
            ),
            (ListFormat::JsonLines, format!("{{\"records\":\"{}\"}}\n", json(*c))),
            (ListFormat::Kubo, format!("[\"/ip4/192.0.2.0{}\"]", json(*c))),
            (ListFormat::Kubo, format!("{{\"Swarm\":\"{}\"}}", json(*c))),
        ] {
            std::fs::write(&path, &text).expect("written");
            let error = NetworkList::from_file(&path, format).expect_err(&text);
            match text.contains("asn") {
                // No JSON knows this escape.
                true => assert!(!error.to_string().contains(*c)),
                false => is_escaped(&error, *c),
            }
        }
    }
    // However long a string of the document is, the message is short.
    let long = format!("{{\"Swarm\":\"{}\"}}", "x".repeat(1 << 20));
    let error = NetworkList::read(long.as_bytes(), ListFormat::Kubo).expect_err("no object");
    assert!(error.to_string().len() < 400, "{}", error.to_string().len());
}

/// As JSON escapes it.
fn json(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

#[test]
fn what_a_file_of_rules_says_is_escaped_where_it_is_found_and_where_it_was_meant() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    for c in OBEYED {
        for line in [
            format!("blok ip 192.0.2.7 note x{c}y"),
            format!("deny from 192.0.2.7 # x{c}y"),
            format!("blok{c}k ip 192.0.2.7"),
            format!("block network 192.0.2.0{c}/24"),
            format!("set a{c}b member"),
            format!("list a{c}b blocked"),
            format!("import a{c}b blocked detect x"),
            format!("import a blocked detect x{c}y"),
            format!("block listener /dns4/a{c}b/tcp/1"),
        ] {
            // A separator of lines or paragraphs is a space between words, too.
            if matches!(c, '\u{2028}' | '\u{2029}') && !line.starts_with("import a blocked") {
                continue;
            }
            std::fs::write(&path, format!("libp2p-gater rules 1\n{line}\n")).expect("written");
            let error = Rules::load(&path).err();
            is_escaped(error.unwrap_or_else(|| panic!("{line:?} was read")), *c);
        }
        std::fs::write(&path, format!("rules{c}1\n")).expect("written");
        let error = Rules::load(&path).expect_err("no header").to_string();
        assert!(!error.contains(*c), "{error:?}");
        // What is read as text becomes a rule that is shown in reasons, and in errors.
        let rule = format!("block ip 192.0.2.7 note x{c}y");
        let rule: Rule = rule.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rule.to_string(), "block ip 192.0.2.7 note x y");
        std::fs::write(&path, format!("libp2p-gater rules 1\nblock port 5 note x{c}y\n")).expect("written");
        let edited = Rules::new().save(&path).expect_err("another file");
        assert!(matches!(edited, FileError::Edited { .. }));
        assert!(edited.to_string().contains("added `block port 5 note x y`"), "{edited}");
    }
}

#[test]
fn a_path_is_escaped_in_errors() {
    for c in OBEYED {
        let path = format!("/nowhere/a{c}b");
        let path = Path::new(&path);
        is_escaped(Rules::load(path).expect_err("no file"), *c);
        is_escaped(Rules::new().save(path).expect_err("no directory"), *c);
        let imported = Rules::new().import("x", Standing::Blocked, path, None);
        is_escaped(imported.expect_err("no file"), *c);
        is_escaped(RuleError::Path(path.to_owned()), *c);
    }
}
