//! When a listener closes whoever says so many bytes: what the arsenal's prober has stored, drawn.

use crate::svg::{Anchor, Svg};
use anyhow::{Context as _, Result, ensure};
use arsenal::classes::{CloseKind, Record};
use arsenal::grid::Ending;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::str::FromStr;

/// A listener, and the file with the outcomes of the probes at it.
#[derive(Debug, Clone)]
pub(crate) struct Probed {
    name: String,
    file: PathBuf,
}

impl FromStr for Probed {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, file) = text.split_once('=').context("NAME=FILE is needed")?;
        Ok(Self {
            name: name.to_owned(),
            file: file.into(),
        })
    }
}

/// What is drawn of a probe. Many fall on one point.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    length: usize,
    ms: u64,
    reset: bool,
}

struct Panel {
    probes: usize,
    points: BTreeSet<Point>,
}

impl Panel {
    fn read(probed: &Probed) -> Result<Self> {
        let path = probed.file.display();
        let file = File::open(&probed.file).with_context(|| format!("cannot read {path}"))?;
        let mut panel = Self {
            probes: 0,
            points: BTreeSet::new(),
        };
        for line in BufReader::new(file).lines() {
            let Record { probe, outcome } =
                serde_json::from_str(&line?).with_context(|| format!("{path} holds something else than probes"))?;
            if probe.ending != Ending::Hold || outcome.close == CloseKind::None {
                continue;
            }
            panel.probes += 1;
            panel.points.insert(Point {
                length: probe.length,
                ms: outcome.since_connect_us / 1000,
                reset: outcome.close == CloseKind::Rst,
            });
        }
        ensure!(panel.probes > 0, "{path} holds no probe that waited for the close");
        Ok(panel)
    }
}

/// Where a length is drawn, from 0 to 1: the step from nothing to one byte is as wide as that from one to two.
fn place(length: usize) -> f64 {
    ((length + 1) as f64).log2() / LONGEST
}

/// As a power of two: the longest that is drawn.
const LONGEST: f64 = 20.0;
const LENGTHS: [(usize, &str); 6] = [
    (0, "0"),
    (15, "15"),
    (97, "97"),
    (1400, "1400"),
    (65_536, "64 Ki"),
    (1_048_575, "1 Mi"),
];

/// One panel beside the other, each with a scale of its own.
pub(crate) fn draw(probed: &[Probed]) -> Result<Svg> {
    const PANEL: f64 = 400.0;
    const LEFT: f64 = 70.0;
    const WIDTH: f64 = 300.0;
    const TOP: f64 = 92.0;
    const HEIGHT: f64 = 220.0;
    const BOTTOM: f64 = TOP + HEIGHT;
    let title = "When a listener closes a connection that it does not know, over what it was sent";
    let mut svg = Svg::new(PANEL * probed.len() as f64 + 24.0, BOTTOM + 84.0, title);
    for (column, one) in probed.iter().enumerate() {
        let panel = Panel::read(one)?;
        let left = LEFT + PANEL * column as f64;
        let longest = panel.points.iter().map(|point| point.ms).max().unwrap_or(0) as f64 / 1e3;
        let step = step(longest);
        // What is a moment late needs no line of its own.
        let most = (longest / step - 0.02).ceil().max(1.0) * step;
        svg.text(left, TOP - 26.0, &one.name, "head", Anchor::Start);
        svg.text(
            left + WIDTH,
            TOP - 26.0,
            &format!("{} probes", panel.probes),
            "small",
            Anchor::End,
        );
        let mut tick = 0.0;
        while tick <= most {
            let y = BOTTOM - HEIGHT * tick / most;
            svg.line((left, y), (left + WIDTH, y), "faint");
            svg.text(left - 8.0, y + 4.0, &format!("{tick} s"), "small", Anchor::End);
            tick += step;
        }
        for (length, label) in LENGTHS {
            let x = left + WIDTH * place(length);
            svg.text(x, BOTTOM + 20.0, label, "small", Anchor::Middle);
        }
        svg.text(left + WIDTH / 2.0, BOTTOM + 40.0, "bytes sent", "small", Anchor::Middle);
        let ours = if column == 0 { "ours" } else { "theirs" };
        // One dot for all that would lie within a pixel of each other.
        let mut drawn = BTreeSet::new();
        for point in &panel.points {
            let x = left + WIDTH * place(point.length).min(1.0);
            let y = BOTTOM - HEIGHT * point.ms as f64 / 1e3 / most;
            if drawn.insert((x.round() as u64, y.round() as u64, point.reset)) {
                let class = if point.reset { "reset" } else { ours };
                svg.rect(x - 2.5, y - 2.5, 5.0, 5.0, class);
            }
        }
    }
    let note = "Each dot is a length and a time. Red: closed with a reset; the others: in order. Scales differ.";
    svg.text(24.0, BOTTOM + 66.0, note, "small", Anchor::Start);
    Ok(svg)
}

/// Between two lines of the scale, for at most six of them.
fn step(longest: f64) -> f64 {
    let steps = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
    steps.into_iter().find(|step| longest / step <= 5.0).unwrap_or(120.0)
}
