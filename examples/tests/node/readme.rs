//! The README shows what `node demo` prints, and not what it printed once.

use crate::process::stdout;
use std::fmt::Write as _;

const MARKER: &str = "<!-- demo transcript -->";

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let shown = transcript(&readme).unwrap_or_else(|why| panic!("{path}: {why}"));
    let printed = stdout(crate::commands::demo());
    let (shown_lines, printed_lines) = (normalised(&shown), normalised(&printed));
    if shown_lines == printed_lines {
        return;
    }
    let mut diff = String::new();
    for number in 0..shown_lines.len().max(printed_lines.len()) {
        let (old, new) = (shown_lines.get(number), printed_lines.get(number));
        if old != new {
            let [old, new] = [old, new].map(|line| line.map_or("(no such line)", String::as_str));
            writeln!(diff, "line {}\n  README  {old}\n  demo    {new}", number + 1).unwrap();
        }
    }
    panic!("the README shows something else than `node demo` prints:\n{diff}\nPaste this instead:\n{printed}");
}

/// What is in the first fenced block behind the marker, but for a command line at its top.
fn transcript(readme: &str) -> Result<String, String> {
    let mut lines = readme.lines().skip_while(|line| !line.contains(MARKER));
    lines.next().ok_or_else(|| format!("there is no line with {MARKER}"))?;
    let mut block = lines.skip_while(|line| !line.starts_with("```"));
    block
        .next()
        .ok_or_else(|| format!("no fenced block follows {MARKER}"))?;
    let lines: Vec<_> = block.take_while(|line| !line.starts_with("```")).collect();
    let command = lines.iter().take_while(|line| line.starts_with("$ ")).count();
    Ok(lines[command..].join("\n"))
}

/// Lines without what differs from run to run: peer ids, ports, durations, rates, and the width of all of them.
fn normalised(text: &str) -> Vec<String> {
    let lines = text.trim().lines();
    lines
        .map(|line| normalised_line(line).split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn normalised_line(line: &str) -> String {
    const PEER: &str = "12D3KooW";
    const PORT: &str = "/tcp/";
    let (mut result, mut rest) = (String::new(), line);
    while let Some(first) = rest.chars().next() {
        let (token, taken) = if rest.starts_with(PEER) {
            ("PEER".to_owned(), length(rest, |c| c.is_ascii_alphanumeric()))
        } else if let Some(port) = rest.strip_prefix(PORT) {
            (format!("{PORT}PORT"), PORT.len() + length(port, |c| c.is_ascii_digit()))
        } else if first.is_ascii_digit() {
            let number = length(rest, |c| c.is_ascii_alphanumeric() || c == '.');
            let unit = rest[number..].strip_prefix(' ').unwrap_or_default();
            let unit = &unit[..length(unit, |c| c.is_alphabetic() || c == '/')];
            match unit {
                // Which of both it is depends on the number.
                "s" | "ms" => ("TIME".to_owned(), number + 1 + unit.len()),
                "MB/s" => ("RATE".to_owned(), number + 1 + unit.len()),
                _ => (rest[..number].to_owned(), number),
            }
        } else {
            // A whole word, so that a digit within it does not look like a number.
            let word = length(rest, char::is_alphanumeric).max(first.len_utf8());
            (rest[..word].to_owned(), word)
        };
        result.push_str(&token);
        rest = &rest[taken..];
    }
    result
}

/// How many bytes of `text` are characters like this.
fn length(text: &str, like: impl Fn(char) -> bool) -> usize {
    text.find(|c| !like(c)).unwrap_or(text.len())
}

#[test]
fn only_what_differs_from_run_to_run_is_ignored() {
    let line =
        "ok  a 12D3KooWGeYtNf  /ip4/127.0.0.1/tcp/34755/tls  0.71 ms and 2 s (1.5 MB/s) 64 MiB ed25519 7 steps 0 bytes";
    assert_eq!(
        normalised(line),
        ["ok a PEER /ip4/127.0.0.1/tcp/PORT/tls TIME and TIME (RATE) 64 MiB ed25519 7 steps 0 bytes"]
    );
    let readme = format!("x\n```\nno\n```\n{MARKER}\n```text\n$ node demo\nyes\n```\n");
    assert_eq!(transcript(&readme).unwrap(), "yes");
    assert!(transcript("```\nx\n```").unwrap_err().contains(MARKER));
}
