//! Tables for people, `RESULT` lines for scripts, JSON for the charts.

use crate::samples::{Samples, median, min_max};
use crate::stacks::Kind;
use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

pub(crate) struct Report {
    name: &'static str,
    results: Vec<(String, f64)>,
    stacks: Map<String, Value>,
}

/// A column of a table.
pub(crate) enum Column {
    /// Median, lowest and highest of a metric.
    Spread(&'static str, &'static str, usize),
    /// The median alone.
    Median(&'static str, &'static str, usize),
    /// How many times the knock's value this stack's is.
    Times(&'static str, &'static str),
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Self {
        println!("\n## {name}");
        Self {
            name,
            results: Vec::new(),
            stacks: Map::new(),
        }
    }

    pub(crate) fn table(&mut self, title: &str, samples: &Samples, kinds: &[Kind], columns: &[Column]) {
        let mut rows = vec![vec!["stack".to_owned()]];
        for column in columns {
            let (Column::Spread(_, heading, _) | Column::Median(_, heading, _) | Column::Times(_, heading)) = column;
            rows[0].push((*heading).to_owned());
        }
        for kind in kinds {
            let mut row = vec![kind.about().to_owned()];
            row.extend(columns.iter().map(|column| cell(column, samples, *kind)));
            rows.push(row);
        }
        println!("\n{title}\n\n{}", markdown(&rows));
        self.keep(samples, kinds);
    }

    /// Puts the medians and the spread of `samples` into the JSON.
    fn keep(&mut self, samples: &Samples, kinds: &[Kind]) {
        for kind in kinds {
            let stack = self.stacks.entry(kind.label()).or_insert_with(|| json!({}));
            for metric in samples.metrics(*kind) {
                let values = samples.of(*kind, metric).unwrap_or_default();
                let (min, max) = min_max(values);
                stack[metric] = json!({ "median": median(values), "min": min, "max": max, "rounds": values.len() });
            }
        }
    }

    /// Our `metric` divided by theirs, if both were measured.
    pub(crate) fn ratio(&mut self, name: &str, samples: &Samples, metric: &'static str, ours: Kind, theirs: Kind) {
        if let Some(ratio) = samples.ratio(ours, theirs, metric) {
            self.results.push((name.to_owned(), ratio));
        }
    }

    /// The median of one stack's `metric`, if it was measured.
    pub(crate) fn value(&mut self, name: &str, samples: &Samples, metric: &'static str, kind: Kind) {
        self.result(name, samples.of(kind, metric).map(median));
    }

    pub(crate) fn result(&mut self, name: &str, value: Option<f64>) {
        self.results.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// Adds anything else to the JSON.
    pub(crate) fn attach(&mut self, key: &str, value: Value) {
        self.stacks.insert(key.to_owned(), value);
    }

    /// Prints the results and, with `json`, replaces this measurement's part of that file.
    pub(crate) fn finish(self, json: Option<&Path>) -> Result<()> {
        println!();
        for (name, value) in &self.results {
            println!("RESULT {name} {value:.3}");
        }
        let Some(path) = json else { return Ok(()) };
        let mut all: Map<String, Value> = match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is no result file", path.display()))?,
            Err(_) => Map::new(),
        };
        let results: Map<String, Value> = self.results.into_iter().map(|(k, v)| (k, json!(v))).collect();
        let own = json!({ "stacks": self.stacks, "results": results });
        all.insert(self.name.to_owned(), own);
        std::fs::write(path, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn cell(column: &Column, samples: &Samples, kind: Kind) -> String {
    let text = match column {
        Column::Spread(metric, _, digits) => samples.of(kind, metric).map(|values| {
            let (min, max) = min_max(values);
            format!("{:.digits$} ({min:.digits$}–{max:.digits$})", median(values))
        }),
        Column::Median(metric, _, digits) => samples
            .of(kind, metric)
            .map(|values| format!("{:.digits$}", median(values))),
        Column::Times(metric, _) => samples
            .ratio(kind, Kind::Knock, metric)
            .map(|ratio| format!("{ratio:.2}")),
    };
    text.unwrap_or_else(|| "–".to_owned())
}

/// Rows, the first of which is the head, with columns of even width.
pub(crate) fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += &format!("| {} |\n", cells.join(" | "));
        if index == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text += &format!("| {} |\n", rules.join(" | "));
        }
    }
    text
}
