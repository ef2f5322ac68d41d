//! Mutual TLS alone, both ends in processes of their own like the hosts.

use crate::idle_many::Process;
use crate::service::{bulk, echo};
use crate::stacks::Kind;
use crate::sys;
use anyhow::Result;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Sent between two looks at the clock.
const ROUND: u64 = 16 * MIB;

/// MiB a second, and seconds of CPU for each, both ends. This process is the one that sends.
pub(super) async fn measure(window: Duration) -> Result<(f64, f64)> {
    let mut listener = Process::start(&["many-listener", Kind::RawTls.label()])?;
    let target = listener.line().await?.parse()?;
    let mut node = Kind::RawTls.endpoint()?;
    let mut connection = node.dial(&target).await?;
    let mut stream = connection.open().await?;
    bulk(&mut stream, ROUND).await?;
    echo(&mut stream).await?;

    let (_, theirs) = listener.usage().await?;
    let (ours, begun) = (sys::cpu(), Instant::now());
    let mut sent = 0;
    while begun.elapsed() < window {
        bulk(&mut stream, ROUND).await?;
        sent += ROUND;
    }
    // It has read everything before.
    echo(&mut stream).await?;
    let (wall, ours) = (begun.elapsed(), sys::cpu() - ours);
    let cpu = ours + listener.usage().await?.1.saturating_sub(theirs);
    let mib = (sent / MIB) as f64;
    Ok((mib / wall.as_secs_f64(), cpu.as_secs_f64() / mib))
}
