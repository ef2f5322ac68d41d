//! MIGRATION.md shows the programs as they are: its diffs are made again from the files, and its command lines are run.

use crate::process::{Dir, Node, PREFER, STOCK};
use std::fmt::Write as _;
use std::path::Path;

/// From what to what the files change, release by release.
const RELEASES: [[&str; 2]; 2] = [["stock.rs", "knock.rs"], ["knock.rs", "knock_only.rs"]];

/// Lines of context round a change.
const CONTEXT: usize = 1;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fenced blocks of the chapter with this language.
fn blocks(language: &str) -> Vec<String> {
    let chapter = read("MIGRATION.md");
    let (mut blocks, mut lines) = (Vec::new(), chapter.lines());
    while let Some(line) = lines.next() {
        if let Some(found) = line.strip_prefix("```") {
            let block = lines
                .by_ref()
                .take_while(|line| *line != "```")
                .map(|line| format!("{line}\n"));
            let block = block.collect();
            if found == language {
                blocks.push(block);
            }
        }
    }
    blocks
}

#[test]
fn the_diffs_are_those_of_the_files() {
    let mut pairs = Vec::new();
    for shown in blocks("diff") {
        let mut heads = shown.lines();
        let Some(old) = heads.next().and_then(|line| line.strip_prefix("--- ")) else {
            continue;
        };
        let new = heads.next().and_then(|line| line.strip_prefix("+++ ")).unwrap();
        let real = unified(old, new, &read(old), &read(new));
        assert!(
            shown == real,
            "MIGRATION.md shows another diff. Paste this instead:\n{real}"
        );
        pairs.push([old, new].map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()));
    }
    assert_eq!(pairs, RELEASES);
}

#[test]
fn the_key_value_store_changes_in_the_same_lines() {
    let changes = |directory: &str, release: [&str; 2]| {
        let [old, new] = release.map(|file| read(&format!("examples/migrate/{directory}{file}")));
        let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
        let changes = diff(&old, &new).into_iter().filter(|(sign, _)| *sign != ' ');
        // It is in another directory.
        let changes = changes.filter(|(_, line)| !line.starts_with("#[path"));
        changes.map(|(sign, line)| format!("{sign}{line}")).collect::<Vec<_>>()
    };
    for release in RELEASES {
        assert_eq!(changes("", release), changes("kv/", release));
    }
}

#[test]
fn the_command_lines_run() {
    let shown = blocks("diff").concat();
    let commands: Vec<_> = shown
        .lines()
        .filter_map(|line| line.get(1..)?.strip_prefix("migrate-"))
        .collect();
    assert_eq!(commands.len(), 6, "{commands:?}");
    for command in commands {
        let (name, args) = command.split_once(' ').unwrap();
        let program = if name == "stock" { STOCK } else { PREFER };
        // Where the test may listen.
        let args = args.replace("/ip4/0.0.0.0/tcp/4001", "/ip4/127.0.0.1/tcp/0");
        let args = args.replace("/ip4/0.0.0.0/tcp/4002/tls", "/ip4/127.0.0.1/tcp/0/tls");
        let mut node = Node::spawn(Dir::new(), program, &args.split_whitespace().collect::<Vec<_>>());
        node.listening();
        if args.contains("prefer") {
            node.listening();
        }
        let knocks = args.contains("prefer") || args.contains("require");
        assert_eq!(node.listens(), (!args.contains("require"), knocks), "{command}");
    }
}

/// The lines of both, each with a blank, or a minus or a plus when only one of them has it.
fn diff<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    // How many lines the rests from here have in common, at best.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut lines, mut i, mut j) = (Vec::new(), 0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

/// What `diff -U1` prints, and `patch` understands.
fn unified(old_path: &str, new_path: &str, old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let lines = diff(&old, &new);
    let shown = |at: usize| {
        let near = at.saturating_sub(CONTEXT)..lines.len().min(at + CONTEXT + 1);
        lines[near].iter().any(|(sign, _)| *sign != ' ')
    };
    let mut text = format!("--- {old_path}\n+++ {new_path}\n");
    let (mut at, mut from, mut to) = (0, 1, 1);
    while at < lines.len() {
        let hunk = lines[at..]
            .iter()
            .enumerate()
            .take_while(|(offset, _)| shown(at + offset));
        let hunk: Vec<_> = hunk.map(|(_, line)| *line).collect();
        let length = |other| hunk.iter().filter(|(sign, _)| *sign != other).count();
        if hunk.is_empty() {
            (at, from, to) = (at + 1, from + 1, to + 1);
            continue;
        }
        writeln!(text, "@@ -{from},{} +{to},{} @@", length('+'), length('-')).unwrap();
        for (sign, line) in &hunk {
            writeln!(text, "{}", format!("{sign}{line}").trim_end()).unwrap();
        }
        (at, from, to) = (at + hunk.len(), from + length('+'), to + length('-'));
    }
    text
}
