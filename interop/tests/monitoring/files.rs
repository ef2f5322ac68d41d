//! The files in `monitoring/` of each crate, and what stands in them.

use serde_json::Value;
use std::path::PathBuf;

/// The crates that have alerts, by folder.
pub(crate) const CRATES: [&str; 4] = ["transport", "gater", "connmgr", "host"];

pub(crate) fn path(of: &str, file: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("..").join(of).join("monitoring").join(file)
}

pub(crate) fn read(of: &str, file: &str) -> String {
    let path = path(of, file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn dashboard(of: &str) -> Value {
    serde_json::from_str(&read(of, "dashboard.json")).unwrap()
}

/// Every panel, those in rows too.
pub(crate) fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        found.push(panel);
        found.extend(panel["panels"].as_array().into_iter().flatten());
    }
    found
}

/// The expressions of a dashboard, and the queries of its variables.
pub(crate) fn expressions(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard)
        .into_iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let of_targets = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    of_targets.collect()
}

/// What the variables of a dashboard ask for: `label_values(series, label)`.
pub(crate) fn variables(dashboard: &Value) -> Vec<String> {
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let queries = variables.iter().filter_map(|variable| variable["definition"].as_str());
    let series = queries.filter_map(|query| query.strip_prefix("label_values(")?.rsplit_once(", "));
    series.map(|(series, _)| series.to_owned()).collect()
}

/// A rule of `rules.yml`.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The name that it records, or of its alert.
    pub(crate) name: String,
    pub(crate) records: bool,
    pub(crate) expression: String,
}

/// The rules of `rules.yml`, whose lines are written as they are in these files: one key a line, an
/// expression on that line or folded below it.
pub(crate) fn rules(of: &str) -> Vec<Rule> {
    let text = read(of, "rules.yml");
    let mut rules: Vec<Rule> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let line = line.trim();
        for (key, records) in [("- alert: ", false), ("- record: ", true)] {
            if let Some(name) = line.strip_prefix(key) {
                rules.push(Rule {
                    name: name.to_owned(),
                    records,
                    expression: String::new(),
                });
            }
        }
        if let Some(expression) = line.strip_prefix("expr: ") {
            let rule = rules.last_mut().unwrap();
            rule.expression = expression.to_owned();
            if expression == ">-" {
                rule.expression.clear();
                while let Some(more) = lines.next_if(|line| line.starts_with("          ")) {
                    rule.expression += more.trim();
                    rule.expression.push(' ');
                }
            }
        }
    }
    assert!(rules.iter().all(|rule| !rule.expression.is_empty()), "{rules:?}");
    rules
}
