//! The README shows the program as it is, and the diff makes it of the stock one.

use std::path::Path;

const STOCK: &str = "examples/all/stock.rs";
const ALL: &str = "examples/all.rs";
const DIFF: &str = "examples/all/stock-to-all.diff";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_diff_makes_the_program_with_all_plugins_of_a_stock_one_of_160_lines() {
    let (stock, diff) = (read(STOCK), read(DIFF));
    assert!(
        (150..=160).contains(&stock.lines().count()),
        "{}",
        stock.lines().count()
    );
    let heads = format!("--- {STOCK}\n+++ {ALL}\n");
    let made = diff
        .strip_prefix(&heads)
        .ok_or_else(|| format!("does not begin with {heads}"))
        .and_then(|hunks| apply(hunks, &stock));
    let anew = format!("make it anew: diff -U2 --label {STOCK} --label {ALL} {STOCK} {ALL} > {DIFF}");
    let made = made.unwrap_or_else(|why| panic!("{DIFF}: {why}\n{anew}"));
    assert!(made == read(ALL), "{DIFF} does not lead to {ALL}\n{anew}");
}

/// What `patch` does, but for looking elsewhere when the lines are not where they should be.
fn apply(hunks: &str, old: &str) -> Result<String, String> {
    let old: Vec<_> = old.lines().collect();
    let (mut new, mut at) = (String::new(), 0);
    let mut put = |line: &str| {
        new.push_str(line);
        new.push('\n');
    };
    for line in hunks.lines() {
        if let Some(head) = line.strip_prefix("@@ -") {
            let from = head
                .split([',', ' '])
                .next()
                .and_then(|from| from.parse::<usize>().ok());
            // The first line has the number 1; of a hunk that takes no line the one before it is named.
            let from = from.ok_or_else(|| format!("no hunk begins like {line}"))? - 1;
            let between = old.get(at..from).ok_or_else(|| format!("no line {from}"))?;
            between.iter().for_each(|line| put(line));
            at = from;
            continue;
        }
        let (sign, text) = line.split_at_checked(1).unwrap_or((" ", ""));
        if sign == "+" {
            put(text);
            continue;
        }
        let found = old.get(at).copied().unwrap_or_default();
        if found != text {
            return Err(format!("line {} is {found:?} and not {text:?}", at + 1));
        }
        at += 1;
        if sign == " " {
            put(text);
        }
    }
    old[at..].iter().for_each(|line| put(line));
    Ok(new)
}

#[test]
fn a_diff_that_does_not_fit_is_refused() {
    let old = "a\nb\nc\n";
    assert_eq!(apply("@@ -1,2 +1,2 @@\n a\n-b\n+B\n", old).unwrap(), "a\nB\nc\n");
    assert!(apply("@@ -1,2 +1,2 @@\n a\n-x\n+B\n", old).is_err());
    assert!(apply("@@ -9,1 +9,1 @@\n-x\n+B\n", old).is_err());
}

#[test]
fn the_readme_shows_the_program_as_it_is() {
    let (readme, program) = (read("README.md"), read(ALL));
    let shown: Vec<String> = readme
        .split("\n```")
        .filter_map(|block| block.strip_prefix("rust\n"))
        .map(|block| block.trim_end().to_owned())
        .filter(|block| block.contains("libp2p_gater::Behaviour"))
        .collect();
    let real =
        ["struct Behaviour {", "fn swarm(", "fn score(", "fn reload_at_hangup("].map(|start| item(&program, start));
    let real = real.join("\n\n");
    assert!(
        shown == [real.clone()],
        "README.md shows something else than {ALL}. Paste this instead:\n```rust\n{real}\n```"
    );
}

/// From the comments and attributes before the line that starts so to the brace that ends it.
fn item(program: &str, start: &str) -> String {
    let lines: Vec<_> = program.lines().collect();
    let at = lines.iter().position(|line| line.starts_with(start)).unwrap();
    let from = lines[..at].iter().rposition(|line| line.is_empty()).unwrap() + 1;
    let to = at + lines[at..].iter().position(|line| *line == "}").unwrap();
    lines[from..=to].join("\n")
}
