//! How long it takes until a message arrives again after a connection was cut.

use super::{AT_ONCE, Node, STACKS, Stack, blast, open_x, pair};
use crate::samples::{median, min_max};
use crate::{Options, report};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Between two dials of a peer: our default. The Go stacks have none and get the same.
const INTERVAL: Duration = Duration::from_secs(3);

/// Without an acknowledgement for so long, the connection was gone.
const GAP: Duration = Duration::from_millis(100);

/// Longest wait for the connection to come back.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) async fn run(options: &Options, go: &Path) -> Result<()> {
    let cuts = options.rounds(5, 1);
    let interval = if options.smoke { AT_ONCE } else { INTERVAL };
    let mut rows = vec![vec!["stack".to_owned(), "ms until a message arrives again".to_owned()]];
    let mut medians = BTreeMap::new();
    for stack in STACKS {
        let measured = measure(stack, go, cuts, interval).await;
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
async fn measure(stack: Stack, go: &Path, cuts: usize, interval: Duration) -> Result<Vec<f64>> {
    let (mut sender, mut sink) = pair(stack, go, interval).await?;
    let wire = Wire::lay(sink.listen.clone()).await?;
    open_x(&mut sender, &mut sink, &wire.address).await?;
    blast(&mut sender, 100, 8, Duration::from_millis(200)).await?;
    let mut took = Vec::new();
    for _ in 0..cuts {
        // The last dial was so long ago that the next one need not wait for it.
        tokio::time::sleep(interval * 2).await;
        took.push(cut(&mut sender, &wire).await? * 1e3);
    }
    Ok(took)
}

/// Seconds without an acknowledgement.
async fn cut(sender: &mut Node, wire: &Wire) -> Result<f64> {
    let (gap, millis) = (u64::try_from(GAP.as_millis())?, u64::try_from(PATIENCE.as_millis())?);
    sender
        .tell(&json!({"cmd": "pace", "name": "x", "gap": gap, "millis": millis}))
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    wire.cut.send_modify(|cuts| *cuts += 1);
    let seen = sender.wait("pace").await?;
    let seconds = seen["seconds"].as_f64().context("no number")?;
    ensure!(seconds >= GAP.as_secs_f64(), "nobody noticed the cut");
    Ok(seconds)
}

/// Passes bytes on, until it is cut; then again for whoever comes next.
struct Wire {
    address: String,
    cut: watch::Sender<u64>,
}

impl Wire {
    async fn lay(to: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (cut, cuts) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut cuts) = (to.clone(), cuts.clone());
                // Only of the cuts that are to come.
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await?;
                    near.set_nodelay(true)?;
                    far.set_nodelay(true)?;
                    tokio::select! {
                        done = copy_bidirectional(&mut near, &mut far) => drop(done?),
                        _ = cuts.changed() => {}
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        Ok(Self { address, cut })
    }
}
