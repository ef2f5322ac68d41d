//! Charts of stored results.

use crate::close_times::{self, Probed};
use crate::ladder::{Flight, STACKS as LADDERS};
use crate::stacks::Kind;
use crate::svg::{Anchor, Svg};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::Path;

/// One panel of bars: a metric of a measurement.
struct Panel {
    head: &'static str,
    metric: &'static str,
    unit: &'static str,
    digits: usize,
}

/// One file: what it is called, which measurement it shows, its title, its panels and what to say below.
type Chart = (&'static str, &'static str, &'static str, [Panel; 2], &'static str);

const fn panel(head: &'static str, metric: &'static str, unit: &'static str, digits: usize) -> Panel {
    Panel {
        head,
        metric,
        unit,
        digits,
    }
}

const CHARTS: [Chart; 5] = [
    (
        "handshake",
        "handshake",
        "CPU of both ends, from dial to first echoed byte",
        [
            panel("first contact", "first_cpu_us", "µs", 0),
            panel("redial", "redial_cpu_us", "µs", 0),
        ],
        "One dial after the other on loopback. Shorter is better. × is against knock.",
    ),
    (
        "handshake-at-once",
        "handshake",
        "CPU of both ends for each of 32 dials at once",
        [
            panel("first contact", "first_at_once_cpu_us", "µs", 0),
            panel("redial", "redial_at_once_cpu_us", "µs", 0),
        ],
        "From dial to first echoed byte, on loopback. Shorter is better. × is against knock.",
    ),
    (
        "throughput",
        "throughput",
        "Bulk data one way, both ends on one machine",
        [
            panel("1 substream", "gib_s_1", "GiB/s", 2),
            panel("32 substreams", "gib_s_32", "GiB/s", 2),
        ],
        "Loopback. Longer is better. × is against knock. Without a muxer, 32 means 32 connections.",
    ),
    (
        "idle",
        "idle",
        "Resident memory of an idle pair of connections",
        [
            panel("after one echo", "idle_kib", "KiB", 1),
            panel("after 1 MiB", "after_1mib_kib", "KiB", 1),
        ],
        "Both ends, kernel buffers not included. Shorter is better. × is against knock.",
    ),
    (
        "rtt",
        "rtt",
        "Round trips on a link of 100 ms",
        [
            panel("until dial returns", "dial_rtts", "RTT", 2),
            panel("to first echo", "echo_rtts", "RTT", 2),
        ],
        "First contact. Shorter is better. × is against knock.",
    ),
];

pub(crate) fn run(json: Option<&Path>, out: &Path, probed: &[Probed]) -> Result<()> {
    ensure!(
        json.is_some() || !probed.is_empty(),
        "plot reads --json FILE, or --close-times NAME=FILE"
    );
    std::fs::create_dir_all(out)?;
    if let Some(json) = json {
        results(json, out)?;
    }
    if !probed.is_empty() {
        save(out, "close-times", close_times::draw(probed)?)?;
    }
    Ok(())
}

fn results(json: &Path, out: &Path) -> Result<()> {
    let text = std::fs::read_to_string(json).with_context(|| format!("cannot read {}", json.display()))?;
    let results: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no result file", json.display()))?;
    let mut drawn = 0;
    for chart in &CHARTS {
        if let Some(stacks) = results.pointer(&format!("/{}/stacks", chart.1)) {
            save(out, chart.0, bars(chart, stacks))?;
            drawn += 1;
        }
    }
    if let Some(stacks) = results.pointer("/ladder/stacks") {
        save(out, "ladder", ladder(stacks)?)?;
        drawn += 1;
    }
    ensure!(drawn > 0, "{} holds no results that can be drawn", json.display());
    Ok(())
}

fn save(out: &Path, name: &str, svg: Svg) -> Result<()> {
    let path = out.join(format!("{name}.svg"));
    std::fs::write(&path, svg.finish()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn bars((_, _, title, panels, note): &Chart, stacks: &Value) -> Svg {
    const LABELS: f64 = 250.0;
    const PANEL: f64 = 320.0;
    const BAR: f64 = 170.0;
    const ROW: f64 = 26.0;
    const TOP: f64 = 84.0;
    /// Longer bars than this many times ours are cut, and show it.
    const MOST: f64 = 6.0;
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| stacks.get(kind.label()).is_some())
        .collect();
    let bottom = TOP + ROW * kinds.len() as f64;
    let mut svg = Svg::new(LABELS + PANEL * panels.len() as f64 + 24.0, bottom + 36.0, title);
    for (row, kind) in kinds.iter().enumerate() {
        let y = TOP + ROW * row as f64 + 14.0;
        let class = if is_ours(*kind) { "ours-text" } else { "" };
        svg.text(24.0, y, name(*kind), class, Anchor::Start);
    }
    for (column, panel) in panels.iter().enumerate() {
        let left = LABELS + PANEL * column as f64;
        let median = |kind: &Kind| stacks[kind.label()][panel.metric]["median"].as_f64();
        // One stack far off would press all others together.
        let limit = median(&Kind::Knock).map_or(f64::INFINITY, |ours| ours * MOST);
        let longest = kinds
            .iter()
            .filter_map(median)
            .fold(f64::MIN_POSITIVE, f64::max)
            .min(limit);
        svg.text(left, TOP - 16.0, panel.head, "head", Anchor::Start);
        // Below the bars: a line through a bar would read as a part of it.
        if let Some(ours) = median(&Kind::Knock) {
            let x = left + BAR * ours / longest;
            svg.line((x, TOP - 6.0), (x, bottom), "faint");
        }
        for (row, kind) in kinds.iter().enumerate() {
            let Some(value) = median(kind) else { continue };
            let (y, length) = (TOP + ROW * row as f64, BAR * (value / longest).min(1.0));
            let class = match kind {
                _ if is_ours(*kind) => "ours",
                Kind::RawTls | Kind::RawTlsX25519 | Kind::RawTcp => "limit",
                _ => "theirs",
            };
            svg.rect(left, y, length.max(1.0), ROW - 8.0, class);
            if value > longest {
                let x = left + length - 16.0;
                svg.line((x, y + ROW - 6.0), (x + 8.0, y - 2.0), "cut");
            }
            let mut label = format!("{value:.*} {}", panel.digits, panel.unit);
            if let Some(ours) = median(&Kind::Knock).filter(|_| *kind != Kind::Knock) {
                label += &format!(" · {:.2}×", value / ours);
            }
            svg.text(left + BAR + 10.0, y + 14.0, &label, "small", Anchor::Start);
        }
    }
    svg.text(24.0, bottom + 18.0, note, "small", Anchor::Start);
    svg
}

fn is_ours(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Knock | Kind::KnockV2 | Kind::KnockX25519 | Kind::KnockFastOpen | Kind::KnockFastOpenHybrid
    )
}

/// Shorter than in the tables.
fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Knock => "knock, X25519MLKEM768",
        Kind::KnockV2 => "knock v2, X25519MLKEM768",
        Kind::KnockX25519 => "knock, X25519",
        Kind::KnockFastOpen => "knock, X25519, Fast Open",
        Kind::KnockFastOpenHybrid => "knock, X25519MLKEM768, Fast Open",
        Kind::RawTls => "mutual TLS, X25519MLKEM768",
        Kind::RawTlsX25519 => "mutual TLS, X25519",
        Kind::Tls => "tcp+tls+yamux, no resumption",
        Kind::TlsShipped => "tcp+tls+yamux, as shipped",
        Kind::Noise => "tcp+noise+yamux",
        Kind::Quic => "quic",
        Kind::RawTcp => "raw TCP",
    }
}

/// The flights of each stack between two life lines, time downwards.
fn ladder(stacks: &Value) -> Result<Svg> {
    const PANEL: f64 = 250.0;
    const SPAN: f64 = 130.0;
    const STEP: f64 = 58.0;
    const TOP: f64 = 116.0;
    let kinds: Vec<Kind> = LADDERS
        .into_iter()
        .filter(|kind| stacks.get(kind.label()).is_some())
        .collect();
    let flights: Vec<Vec<Flight>> = kinds
        .iter()
        .map(|kind| Ok(serde_json::from_value(stacks[kind.label()].clone())?))
        .collect::<Result<_>>()?;
    let trips = flights
        .iter()
        .flatten()
        .map(|flight| flight.at + 1.0)
        .fold(0.0, f64::max);
    let bottom = TOP + STEP * trips + 8.0;
    let title = "One connection, from the connected socket to the first echoed byte";
    let mut svg = Svg::new(40.0 + PANEL * kinds.len() as f64, bottom + 62.0, title);
    for (column, (kind, flights)) in kinds.iter().zip(&flights).enumerate() {
        let left = 76.0 + PANEL * column as f64;
        let right = left + SPAN;
        let (line, tip) = if is_ours(*kind) {
            ("ours-line", "ours-tip")
        } else {
            ("line", "tip")
        };
        svg.text((left + right) / 2.0, 70.0, name(*kind), "head", Anchor::Middle);
        svg.text(left, 98.0, "dialer", "small", Anchor::Middle);
        svg.text(right, 98.0, "listener", "small", Anchor::Middle);
        for x in [left, right] {
            svg.line((x, TOP - 10.0), (x, bottom), "faint");
        }
        for flight in flights {
            let y = TOP + STEP * flight.at;
            let (from, to) = if flight.from_dialer {
                (left, right)
            } else {
                (right, left)
            };
            svg.arrow((from, y), (to, y + STEP), line, tip);
            let label = format!("{} B", flight.bytes);
            let (x, anchor) = if flight.from_dialer {
                (right + 8.0, Anchor::Start)
            } else {
                (left - 8.0, Anchor::End)
            };
            svg.text(x, y + STEP + 4.0, &label, "small", anchor);
        }
        let bytes: usize = flights.iter().map(|flight| flight.bytes).sum();
        let sum = format!("{} flights, {bytes} bytes", flights.len());
        svg.text((left + right) / 2.0, bottom + 22.0, &sum, "", Anchor::Middle);
    }
    let note = "Payload of TCP, recorded by a proxy; TCP's own handshake comes before. First contact.";
    svg.text(24.0, bottom + 48.0, note, "small", Anchor::Start);
    Ok(svg)
}
