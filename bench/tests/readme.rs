//! The README's figures are those of `results.json`.

use serde_json::Value;
use std::collections::BTreeMap;

const README: &str = include_str!("../README.md");
const RESULTS: &str = include_str!("../results.json");

/// Marks the columns that come from the file.
const MARK: char = '†';

/// Newer than the run that the file holds. The figure is worked out from that run's table.
const NOT_STORED: [&str; 1] = ["gater_dial_of_peer_vs_bare_trie"];

fn stored() -> BTreeMap<String, f64> {
    let parts: BTreeMap<String, Value> = serde_json::from_str(RESULTS).expect("JSON");
    let results = parts.values().filter_map(|part| part["results"].as_object());
    let all = results.flatten().map(|(name, value)| (name.clone(), value.as_f64()));
    all.map(|(name, value)| (name, value.expect("a number"))).collect()
}

fn cells(row: &str) -> Vec<&str> {
    let inner = row.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(str::trim).collect()
}

/// The result that a cell is about. In the table of handshakes head, row and column each say a part of the name.
fn name(head: &str, row: &str, column: &str) -> Option<String> {
    let code = |text: &str| text.split('`').nth(1).map(str::to_owned);
    let row = code(row)?;
    let Some(prefix) = code(head).and_then(|head| head.strip_suffix('…').map(str::to_owned)) else {
        return Some(row);
    };
    let how = match column.trim_end_matches(MARK).trim() {
        "one after the other" => "",
        "32 at once" => "_at_once",
        "after a pause" => "_after_pause",
        unknown => panic!("how is {unknown:?} called in results.json?"),
    };
    let (who, what) = row.split_once('…').unwrap_or(("", &row));
    Some(format!("{prefix}{who}{how}{what}"))
}

#[test]
fn what_the_readme_says_is_in_the_file_is() {
    let stored = stored();
    let mut compared = 0;
    let mut wrong = Vec::new();
    let mut head: Option<Vec<&str>> = None;
    for line in README.lines() {
        if !line.starts_with('|') {
            head = None;
            continue;
        }
        let row = cells(line);
        let Some(head) = &head else {
            head = Some(row);
            continue;
        };
        for (column, cell) in head.iter().zip(&row).filter(|(column, _)| column.ends_with(MARK)) {
            let figure = cell.trim_matches('*').replace(',', "");
            let (Ok(_), Some(name)) = (figure.parse::<f64>(), name(head[0], row[0], column)) else {
                continue;
            };
            let Some(value) = stored.get(&name) else {
                if !NOT_STORED.contains(&name.as_str()) {
                    wrong.push(format!("{name}: not in results.json"));
                }
                continue;
            };
            let digits = figure.split_once('.').map_or(0, |(_, digits)| digits.len());
            if format!("{value:.digits$}") != figure {
                wrong.push(format!("{name}: {figure} here, {value} in results.json"));
            }
            compared += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 40, "only {compared} figures were found");
}
