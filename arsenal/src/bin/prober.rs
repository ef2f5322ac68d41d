//! Probes a listener and says into how many kinds its behaviour falls.

use anyhow::{Context as _, Result};
use arsenal::classes::{Class, Record, classes, worst};
use arsenal::content::Pantry;
use arsenal::gate::GateKey;
use arsenal::grid::{Ending, LENGTHS, probe};
use arsenal::probe::Limits;
use arsenal::source::Sources;
use arsenal::sweep::{Sweep, Swept};
use arsenal::{capture, cells, rng, stats, sys};
use clap::Parser;
use libp2p_identity::PeerId;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Parser)]
#[command(about)]
struct Args {
    /// The listener.
    target: SocketAddr,
    #[arg(long, default_value_t = 10_000)]
    probes: u64,
    /// What the probes follow from. One is made up, and printed, if none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds a probe waits for the listener to close: more than its close time.
    #[arg(long, default_value_t = 10.0)]
    hold_limit: f64,
    /// Open sockets at once.
    #[arg(long, default_value_t = 6000)]
    in_flight: usize,
    /// Probes a second, at most.
    #[arg(long, default_value_t = 3000.0)]
    rate: f64,
    /// Source prefixes, 127.a.b.0/24, against a listener on loopback.
    #[arg(long, default_value_t = 64)]
    prefixes: u16,
    /// Only these endings: hold, fin, rst, close.
    #[arg(long, value_delimiter = ',')]
    endings: Vec<Ending>,
    /// Recorded first flights, or directories of them: replayed, flipped, cut, and rewrapped if `--peer` is given.
    #[arg(long, value_name = "PATH")]
    captures: Vec<PathBuf>,
    /// The listener's PeerId: its outer boxes can be made and opened then.
    #[arg(long)]
    peer: Option<PeerId>,
    /// Writes every probe's outcome here, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Close times further apart than this, in milliseconds and with none between, are different.
    #[arg(long, default_value_t = 250)]
    gap: u64,
    /// Tests whether the close time depends on length and content, instead of the sweep. Takes the first of the endings.
    #[arg(long)]
    cells: bool,
    /// Samples of each cell.
    #[arg(long, default_value_t = 200)]
    samples: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let limit = sys::raise_open_files(args.in_flight as u64 + 256);
    let mut sweep = Sweep::new(args.target);
    sweep.in_flight = args.in_flight.min(usize::try_from(limit.saturating_sub(256))?).max(1);
    sweep.rate = args.rate;
    sweep.limits = Limits {
        hold: Duration::try_from_secs_f64(args.hold_limit).context("--hold-limit")?,
        ..Limits::default()
    };
    sweep.sources = sweep.sources.map(|_| Sources::probes(args.prefixes));
    let seed = args.seed.unwrap_or_else(rng::fresh_seed);
    println!("seed {seed}, {} sockets at most", sweep.in_flight);

    let gate = args.peer.as_ref().map(GateKey::of_peer).transpose()?;
    let pantry = Arc::new(Pantry::new(capture::load(&args.captures)?, gate)?);
    let mut lines = match &args.json {
        Some(path) => Some(BufWriter::new(
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => None,
    };
    let mut failed = None;
    let each = |record: &Record| {
        if let Some(lines) = &mut lines
            && failed.is_none()
        {
            failed = write_line(lines, record).err();
        }
    };
    let endings = if args.endings.is_empty() {
        Ending::ALL.to_vec()
    } else {
        args.endings.clone()
    };
    let swept = if args.cells {
        let plan = cells::Cells {
            lengths: LENGTHS.iter().copied().filter(|length| *length <= 4316).collect(),
            contents: pantry.contents(),
            ending: endings.first().copied().unwrap_or(Ending::Hold),
            samples: args.samples,
            threshold: stats::Threshold::default(),
        };
        let (verdicts, swept) = plan.run(&sweep, pantry, seed, each).await;
        print_cells(&verdicts);
        swept
    } else {
        let contents = pantry.contents();
        let plan = (0..args.probes).map(|index| probe(seed, index, &contents, &endings));
        sweep.run(pantry, plan, each).await
    };
    if let Some(mut lines) = lines {
        lines.flush()?;
    }
    if let Some(e) = failed {
        return Err(e).context("cannot write the outcomes");
    }
    print_sweep(
        &swept,
        &classes(&swept.records, Duration::from_millis(args.gap)),
        &endings,
    );
    Ok(())
}

fn write_line(lines: &mut impl Write, record: &Record) -> std::io::Result<()> {
    serde_json::to_writer(&mut *lines, record)?;
    lines.write_all(b"\n")
}

fn print_cells(verdicts: &[cells::CellVerdict]) {
    let told = verdicts.iter().filter(|cell| cell.verdict.distinguishable);
    for cells::CellVerdict {
        length,
        content,
        verdict,
    } in told.clone()
    {
        let stats::Verdict {
            samples,
            d,
            p,
            effect_ms,
            ..
        } = verdict;
        println!("  {content} × {length}: {effect_ms:+.1} ms, D {d:.3}, p {p:.2e}, {samples} samples");
    }
    let least = verdicts.iter().map(|cell| cell.verdict.p).fold(1.0, f64::min);
    let most = verdicts
        .iter()
        .map(|cell| cell.verdict.effect_ms.abs())
        .fold(0.0, f64::max);
    println!(
        "{} cells, least p {least:.3e}, largest effect {most:.2} ms",
        verdicts.len()
    );
    println!("distinguishable: {} cells", told.clone().count());
    println!("RESULT probe_cells_distinguishable {}", told.count());
}

fn print_sweep(swept: &Swept, classes: &[Class], endings: &[Ending]) {
    let seconds = swept.elapsed.as_secs_f64();
    let reached = swept.records.len();
    println!(
        "{reached} probes in {seconds:.1} s, {:.0} a second",
        reached as f64 / seconds.max(1e-3)
    );
    for (reason, probes) in &swept.not_connected {
        println!("not connected: {probes} × {reason}");
    }
    for class in classes {
        let Class {
            ending,
            answered,
            close,
            span_ms,
            probes,
            lengths,
        } = class;
        let answer = if *answered { "bytes" } else { "no byte" };
        let when = span_ms.map_or(String::new(), |(first, last)| format!(" at {first:.1}–{last:.1} ms"));
        println!("  after {ending}: {answer}, {close:?}{when}: {probes} probes, lengths from {lengths:?}");
    }
    println!("RESULT probe_probes {reached}");
    println!("RESULT probe_not_connected {}", swept.unsent());
    println!("RESULT probe_bytes_answered {}", swept.bytes_answered());
    for ending in endings {
        let count = classes.iter().filter(|class| class.ending == *ending).count();
        println!("RESULT probe_outcome_classes_{ending} {count}");
    }
    println!("RESULT probe_outcome_classes {}", worst(classes));
}
