//! How long it takes until a message arrives again after a connection was cut.

use super::{AT_ONCE, Node, Programs, Stack, blast, pair};
use crate::samples::{median, min_max};
use crate::{Options, report};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Between two dials of a peer: our default. The Go stacks have none and get the same; commonware-p2p keeps its own.
const INTERVAL: Duration = Duration::from_secs(3);

/// Without an acknowledgement for so long, the connection was gone: one comes every 20 ms or so.
const GAP: Duration = Duration::from_millis(100);

/// Longest wait for the connection to come back.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(options: &Options, programs: &Programs) -> Result<()> {
    let cuts = options.rounds(5, 1);
    let interval = if options.smoke { AT_ONCE } else { INTERVAL };
    let mut rows = vec![vec!["stack".to_owned(), "ms until a message arrives again".to_owned()]];
    let mut medians = BTreeMap::new();
    for stack in programs.stacks() {
        let measured = measure(stack, programs, cuts, interval).await;
        let took = measured.with_context(|| stack.about())?;
        let (min, max) = min_max(&took);
        let value = format!("{:.0} ({min:.0}–{max:.0})", median(&took));
        rows.push(vec![stack.about().to_owned(), value]);
        medians.insert(stack, median(&took));
    }
    println!("\n{cuts} cuts of both halves of the connection, {interval:?} between dials; median (lowest–highest)\n");
    println!("{}", report::markdown(&rows));
    let of = |stack| medians.get(&stack).copied().context("it was measured");
    println!("RESULT host_recovery_vs_go {:.3}", of(Stack::Ours)? / of(Stack::GoV1)?);
    Ok(())
}

/// Milliseconds, for each cut.
async fn measure(stack: Stack, programs: &Programs, cuts: usize, interval: Duration) -> Result<Vec<f64>> {
    let (mut sender, _sink, wire) = pair(stack, programs, interval, Wire::lay).await?;
    let mut took = Vec::new();
    while took.len() < cuts {
        // The last dial was so long ago that the next one need not wait for it.
        tokio::time::sleep(interval * 2).await;
        if let Some(seconds) = cut(&mut sender, &wire).await? {
            took.push(seconds * 1e3);
            continue;
        }
        ensure!(stack == Stack::GoNew, "it did not come back in {PATIENCE:?}");
        // It has a connection and is silent on it, as `pair` says.
        eprintln!("{}: not back in {PATIENCE:?}, which is counted as that", stack.about());
        took.push(PATIENCE.as_secs_f64() * 1e3);
        wire.cut.send_modify(|cuts| *cuts += 1);
        tokio::time::sleep(interval * 2).await;
    }
    Ok(took)
}

/// Seconds without an acknowledgement; `None` if none came within [`PATIENCE`].
async fn cut(sender: &mut Node, wire: &Wire) -> Result<Option<f64>> {
    let (gap, millis) = (u64::try_from(GAP.as_millis())?, u64::try_from(PATIENCE.as_millis())?);
    sender
        .tell(&json!({"cmd": "pace", "name": "x", "gap": gap, "millis": millis}))
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = wire.done.load(Ordering::Relaxed);
    wire.cut.send_modify(|cuts| *cuts += 1);
    let seen = sender.wait("pace").await?;
    tokio::time::sleep(GAP).await;
    ensure!(wire.done.load(Ordering::Relaxed) > before, "there was nothing to cut");
    // One that was back sooner than in `GAP` has been looked at until the patience ended, and so has one that never was.
    let (arrived, _) = blast(sender, 100, 8, Duration::from_millis(200)).await?;
    if arrived == 0.0 {
        return Ok(None);
    }
    seen["seconds"].as_f64().context("no number").map(Some)
}

/// Passes bytes on, until it is cut; then again for whoever comes next.
struct Wire {
    cut: watch::Sender<u64>,
    /// Connections that were cut.
    done: Arc<AtomicU64>,
}

impl Wire {
    /// And where to dial.
    async fn lay(to: String) -> Result<(Self, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (cut, cuts) = watch::channel(0);
        let done = Arc::new(AtomicU64::new(0));
        let counted = done.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut cuts, counted) = (to.clone(), cuts.clone(), counted.clone());
                // Only of the cuts that are to come.
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await?;
                    near.set_nodelay(true)?;
                    far.set_nodelay(true)?;
                    tokio::select! {
                        done = copy_bidirectional(&mut near, &mut far) => drop(done?),
                        _ = cuts.changed() => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        Ok((Self { cut, done }, address))
    }
}
