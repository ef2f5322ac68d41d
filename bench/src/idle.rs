//! Memory of connections that do nothing, each stack in a process of its own.

use crate::report::{Column, Report};
use crate::samples::Samples;
use crate::service::{Counters, bulk, echo};
use crate::stacks::{Connection, Kind};
use crate::{Options, sys};
use anyhow::{Context as _, Result, ensure};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

const MIB: u64 = 1 << 20;

pub(crate) async fn run(options: &Options, connections: Option<usize>) -> Result<()> {
    let rounds = options.rounds(2, 1);
    let connections = connections.unwrap_or(if options.smoke { 40 } else { 2000 });
    let used = (connections / 4).max(10);
    let kinds = options.kinds();
    let mut samples = Samples::default();
    for _ in 0..rounds {
        for kind in &kinds {
            let idle = in_a_process(*kind, connections, false).await?;
            samples.push(*kind, "idle_kib", idle);
            let after = in_a_process(*kind, used, true).await?;
            samples.push(*kind, "after_1mib_kib", after);
        }
    }

    samples.check(&kinds, &["idle_kib", "after_1mib_kib"])?;
    let mut report = Report::new("idle");
    let title = format!(
        "KiB of resident memory per pair, both ends in one process: {connections} connections after one echo each, \
         {used} after 1 MiB one way each; {rounds} rounds"
    );
    let columns = [
        Column::Spread("idle_kib", "idle", 1),
        Column::Spread("after_1mib_kib", "after 1 MiB", 1),
        Column::Times("idle_kib", "idle ÷ knock"),
        Column::Times("after_1mib_kib", "after ÷ knock"),
    ];
    report.table(&title, &samples, &kinds, &columns);
    let theirs = [
        ("tls", Kind::Tls),
        ("noise", Kind::Noise),
        ("quic", Kind::Quic),
        ("rawtls", Kind::RawTls),
    ];
    for (name, kind) in theirs {
        report.ratio(&format!("idle_vs_{name}"), &samples, "idle_kib", Kind::Knock, kind);
        report.ratio(
            &format!("idle_after_1mib_vs_{name}"),
            &samples,
            "after_1mib_kib",
            Kind::Knock,
            kind,
        );
    }
    report.finish(options.json())
}

/// KiB per pair, from a fresh process: what an earlier stack left in the allocator would hide a part.
async fn in_a_process(kind: Kind, connections: usize, used: bool) -> Result<f64> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["idle-child", kind.label(), &connections.to_string()]);
    if used {
        child.arg("--used");
    }
    let output = child.stderr(std::process::Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "the process for {kind} failed");
    let text = String::from_utf8(output.stdout)?;
    text.trim()
        .parse()
        .with_context(|| format!("{kind}: {text:?} is no number"))
}

/// The process for one stack.
pub(crate) async fn child(kind: Kind, connections: usize, used: bool) -> Result<()> {
    let counters = Arc::new(Counters::default());
    let target = kind
        .endpoint()?
        .listen(Ipv4Addr::LOCALHOST.into(), counters.clone())
        .await?;
    let mut node = kind.endpoint()?;
    // What is made once, on the first connections, is not a connection's.
    for _ in 0..4 {
        connect(&mut node.dial(&target).await?, used, &counters).await?;
        counters.gone().await;
    }
    let before = sys::resident()?;
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        if kind == Kind::KnockV2 {
            // From one peer a listener takes no more of them than this, whatever else it is allowed.
            tokio::time::sleep(Duration::from_millis(6)).await;
        }
        let mut connection = node.dial(&target).await?;
        connect(&mut connection, used, &counters).await?;
        open.push(connection);
    }
    // The last frames, and the ends of the substreams, have arrived.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = sys::resident()?;
    drop(open);
    println!("{}", after.saturating_sub(before) as f64 / 1024.0 / connections as f64);
    Ok(())
}

/// One echo, and 1 MiB one way where the connection is to be a used one.
async fn connect(connection: &mut Connection, used: bool, counters: &Counters) -> Result<()> {
    let mut stream = connection.open().await?;
    echo(&mut stream).await?;
    connection.release(stream);
    if !used {
        return Ok(());
    }
    let expected = counters.swallowed() + MIB;
    let mut stream = connection.open().await?;
    bulk(&mut stream, MIB).await?;
    while counters.swallowed() < expected {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    connection.release(stream);
    Ok(())
}
