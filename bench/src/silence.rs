//! What strangers cost a listener, and what honest dialers notice of them: floods in three scenarios, stock libp2p beside
//! ours. The listener, the flood and the dialers are programs of the `arsenal`.

use crate::Options;
use crate::report::{Report, markdown};
use crate::samples::median;
use anyhow::{Context as _, Result};
use arsenal::campaign::{FloodReport, Scenario, Stack, Tools, flood};
use libp2p_core::Multiaddr;
use libp2p_identity::Keypair;
use libp2p_knock::internals::{Doorkeeper, HEAD, Verdict};
use libp2p_knock::{Config, Refusal};
use std::hint::black_box;
use std::time::Instant;

/// Bogus heads in each sample.
const HEADS: usize = 1000;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let tools = Tools::beside_this_program()?;
    let mut report = Report::new("silence");
    report.result("gate_reject_us", Some(gate_reject_us(options)?));

    let mut ours = Vec::new();
    let mut rows = vec![heads()];
    for stack in [Stack::Knock, Stack::Noise] {
        for scenario in scenarios(options, stack) {
            let tools = tools.clone();
            let name = scenario.name.clone();
            // It waits for its programs.
            let flooded = tokio::task::spawn_blocking(move || flood(&tools, &scenario)).await?;
            let flooded = flooded.with_context(|| format!("{stack:?}, {name}"))?;
            rows.push(row(stack, &flooded));
            if stack == Stack::Knock {
                ours.push(flooded);
            }
        }
    }
    println!("\n{}", markdown(&rows));
    report.attach("rows", serde_json::to_value(&rows)?);

    for flooded in &ours {
        let name = flooded.scenario.replace('-', "_");
        report.result(&format!("flood_first_try_{name}"), Some(flooded.honest_first_try));
        report.result(&format!("flood_rate_{name}"), Some(flooded.rate));
    }
    let worst = |of: fn(&FloodReport) -> f64| ours.iter().map(of).reduce(f64::max);
    let least = ours.iter().map(|flooded| flooded.honest_within_three).reduce(f64::min);
    report.result("flood_honest_success", least);
    report.result(
        "flood_p99_added_ms",
        worst(|flooded| flooded.p99_ms - flooded.idle_p99_ms),
    );
    report.result("pool_mib", worst(FloodReport::listener_mib));
    report.finish(options.json())
}

/// The three, with a minute of dials. What insiders do needs a knock, so stock libp2p has two.
fn scenarios(options: &Options, stack: Stack) -> Vec<Scenario> {
    let ours = stack == Stack::Knock;
    let wanted = Scenario::all()
        .into_iter()
        .filter(|scenario| ours || !scenario.insiders);
    let set = |scenario: Scenario| {
        let dials = scenario.dial_rate * 60.0;
        let scenario = Scenario {
            stack,
            dials: dials as usize,
            ..scenario
        };
        if options.smoke { scenario.smoke() } else { scenario }
    };
    wanted.map(set).collect()
}

/// From the head of a bogus knock in memory to its refusal: what a listener does for each beyond the system calls.
fn gate_reject_us(options: &Options) -> Result<f64> {
    let doorkeeper = Doorkeeper::new(Config::new(&Keypair::generate_ed25519())?);
    let remote: Multiaddr = "/ip4/192.0.2.7/tcp/4001/tls".parse()?;
    // Uniform enough for a box: whichever bytes they are, their tag is wrong.
    let heads: Vec<[u8; HEAD]> = (0..HEADS)
        .map(|number| std::array::from_fn(|at| (number * 31 + at * 7 + (number * at) / 3) as u8))
        .collect();
    let mut samples = Vec::new();
    for _ in 0..options.rounds(101, 5) {
        let started = Instant::now();
        for head in &heads {
            let (verdict, _) = doorkeeper.hear(&remote, [&black_box(head)[..]]);
            anyhow::ensure!(verdict == Verdict::Refused(Refusal::Box), "{verdict:?}");
        }
        samples.push(started.elapsed().as_secs_f64() * 1e6 / HEADS as f64);
    }
    Ok(median(&samples))
}

fn heads() -> Vec<String> {
    [
        "listener",
        "scenario",
        "bogus/s",
        "first try",
        "within three",
        "p50, idle → flood, ms",
        "p99, idle → flood, ms",
        "CPU",
        "kept waiting",
        "queue full",
        "descriptors",
        "MiB, process + kernel",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn row(stack: Stack, flooded: &FloodReport) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let stack = match stack {
        Stack::Knock => "**knock**",
        Stack::Noise => "libp2p tcp+noise+yamux",
    };
    vec![
        stack.to_owned(),
        flooded.scenario.clone(),
        format!("{:.0}", flooded.rate),
        percent(flooded.honest_first_try),
        percent(flooded.honest_within_three),
        format!("{:.1} → {:.1}", flooded.idle_p50_ms, flooded.p50_ms),
        format!("{:.1} → {:.1}", flooded.idle_p99_ms, flooded.p99_ms),
        percent(flooded.listener_cpu_share),
        flooded.listener_waited_share.map_or_else(|| "–".to_owned(), percent),
        flooded.queue_full.to_string(),
        flooded.open_files.to_string(),
        format!("{:.1} + {:.1}", flooded.rss_mib, flooded.listener_kernel_mib),
    ]
}
