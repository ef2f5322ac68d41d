//! What a decision of the gater's rules costs with long lists, beside a bare prefix trie and go-libp2p's gater with the
//! same lists.

mod ask;
mod go;
mod lists;

use crate::report::{Report, markdown};
use crate::samples::{median, min_max};
use crate::{Options, sys};
use anyhow::{Context as _, Result};
use ask::{Asked, Trie};
use libp2p_gater::{Cidr, Rules};
use lists::{Lists, Question};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// Decisions between two looks at the clock: enough that the look does not count, few enough for a median of many.
const BATCH: usize = 32;

/// Nanoseconds a decision, one median for each round.
type Times = BTreeMap<(&'static str, bool), Vec<f64>>;

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut report = Report::new("gater");
    let lists = match options.smoke {
        true => Lists::make(1_000, 10_000, 512),
        false => Lists::make(100_000, 1_000_000, 8_192),
    };
    let directory = tempfile::tempdir()?;
    let (path, questions) = (directory.path().join("rules"), directory.path().join("questions"));
    lists.write(&path, &questions)?;

    let start = Instant::now();
    let rules = Rules::load(&path)?;
    let load = start.elapsed();
    let start = Instant::now();
    rules.save(directory.path().join("saved"))?;
    let save = start.elapsed();
    let memory = memory_of(&path)?;

    let rounds = options.rounds(9, 1);
    let trie = Trie::of(&lists);
    let (mut times, mut bare) = (Times::new(), Times::new());
    for _ in 0..rounds {
        for hit in [true, false] {
            bare.entry(("trie", hit)).or_default().push(trie.measure(&lists, hit)?);
            for stage in Asked::ALL {
                let time = stage.measure(&rules, &lists, hit)?;
                times.entry((stage.name(), hit)).or_default().push(time);
            }
        }
    }
    let change = changes(&rules, &lists, rounds)?;
    let go = go::run(directory.path(), &path, &questions, options)?;

    print_decisions(&lists, rounds, &times, &bare, go.as_ref());
    print_rest(load, save, memory, change, go.as_ref());
    results(&mut report, &times, &bare, go.as_ref());
    report.result("gater_load_s", Some(load.as_secs_f64()));
    report.result("gater_memory_mib", Some(memory));
    report.result("gater_change_us", Some(change));
    let all: BTreeMap<String, f64> = times
        .iter()
        .chain(&bare)
        .map(|((name, hit), rounds)| (format!("{name}_{}", answer(*hit)), median(rounds)))
        .collect();
    report.attach("decision_ns", serde_json::to_value(all)?);
    report.attach("go", serde_json::to_value(&go)?);
    report.finish(options.json())
}

fn answer(hit: bool) -> &'static str {
    if hit { "deny" } else { "pass" }
}

fn results(report: &mut Report, times: &Times, bare: &Times, go: Option<&go::Measured>) {
    let stages = times.iter().filter(|((name, _), _)| !name.ends_with("_parsed"));
    let slowest = stages.map(|(_, rounds)| median(rounds)).reduce(f64::max);
    report.result("gater_decision_ns", slowest);
    // The worst of some stages and of both answers, each beside the same look-ups of the same round.
    let worst = |names: &[&'static str]| {
        let keys = names.iter().flat_map(|name| [(*name, true), (*name, false)]);
        let ratios = keys.filter_map(|key| {
            let (ours, theirs) = (times.get(&key)?, bare.get(&("trie", key.1))?);
            let each: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
            Some(median(&each))
        });
        ratios.reduce(f64::max)
    };
    report.result("gater_vs_bare_trie", worst(&["accept", "addr_dial_no_peer"]));
    // Asks the list of peers as well, which the trie knows nothing of.
    report.result("gater_dial_of_peer_vs_bare_trie", worst(&["addr_dial_with_peer"]));
    let speedup = go.and_then(|go| {
        let of = |hit| Some(go.decision("accept", hit)? / median(times.get(&("accept", hit))?));
        Some(of(true)?.min(of(false)?))
    });
    report.result("gater_cidr_speedup_vs_go", speedup);
}

fn print_decisions(lists: &Lists, rounds: usize, times: &Times, bare: &Times, go: Option<&go::Measured>) {
    let mut rows = vec![
        ["decision", "answer", "ns", "÷ bare trie", "go-libp2p, ns", "go ÷ ours"]
            .map(String::from)
            .to_vec(),
    ];
    for ((name, hit), own) in bare.iter().chain(times) {
        let (low, high) = min_max(own);
        let theirs = go.and_then(|go| go.decision(name, *hit));
        let addressed = name.starts_with("accept") || name.starts_with("addr_dial");
        let trie = bare.get(&("trie", *hit)).filter(|_| addressed).map(|trie| {
            let each: Vec<f64> = own.iter().zip(trie).map(|(ours, theirs)| ours / theirs).collect();
            format!("{:.2}", median(&each))
        });
        let none = || "–".to_owned();
        rows.push(vec![
            Asked::about(name).to_owned(),
            answer(*hit).to_owned(),
            format!("{:.0} ({low:.0}–{high:.0})", median(own)),
            trie.unwrap_or_else(none),
            theirs.map_or_else(none, |ns| format!("{ns:.0}")),
            theirs.map_or_else(none, |ns| format!("{:.1}", ns / median(own))),
        ]);
    }
    println!(
        "\n{} blocked networks and {} blocked peers; median of {rounds} rounds, each the median of batches of {BATCH}\n\n{}",
        lists.networks.len(),
        lists.peers.len(),
        markdown(&rows)
    );
}

fn print_rest(load: Duration, save: Duration, memory: f64, change: f64, go: Option<&go::Measured>) {
    let theirs = |of: fn(&go::Measured) -> f64| go.map_or_else(|| "–".to_owned(), |go| format!("{:.2}", of(go)));
    let rows = [
        ["", "ours", "go-libp2p"].map(String::from).to_vec(),
        vec![
            "load from a file, s".into(),
            format!("{:.2}", load.as_secs_f64()),
            theirs(|go| go.load_s),
        ],
        vec![
            "save to a file, s".into(),
            format!("{:.2}", save.as_secs_f64()),
            "–".into(),
        ],
        vec!["memory, MiB".into(), format!("{memory:.1}"), theirs(|go| go.heap_mib)],
        vec![
            "block and unblock a peer and a network, µs".into(),
            format!("{change:.0}"),
            "–".into(),
        ],
    ];
    println!("\n{}", markdown(&rows));
}

/// Microseconds, the median, for one change that blocks a peer and a network, or takes that back.
fn changes(rules: &Rules, lists: &Lists, rounds: usize) -> Result<f64> {
    let mut times = Vec::new();
    for Question { peer, ip, .. } in lists.misses.iter().take(50 * rounds) {
        for block in [true, false] {
            let start = Instant::now();
            rules.change(|change| {
                let range = Cidr::from(*ip);
                match block {
                    true => change.block(*peer).and_then(|()| change.block(range)),
                    false => {
                        change.unblock(*peer);
                        change.unblock(range);
                        Ok(())
                    }
                }
            })?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(median(&times))
}

/// What the rules add to a fresh process, in MiB: what an earlier measurement left in the allocator would hide a part.
fn memory_of(rules: &Path) -> Result<f64> {
    let mut child = std::process::Command::new(std::env::current_exe()?);
    let output = child.arg("gater-memory").arg(rules).output()?;
    anyhow::ensure!(output.status.success(), "the process that loads the rules failed");
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().with_context(|| format!("{text:?} is no number"))
}

/// The process for [`memory_of`].
pub(crate) fn memory(path: &Path) -> Result<()> {
    let before = sys::resident()?;
    let rules = Rules::load(path)?;
    let after = sys::resident()?;
    black_box(&rules);
    println!("{}", after.saturating_sub(before) as f64 / f64::from(1 << 20));
    Ok(())
}
