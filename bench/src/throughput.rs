//! Bulk data one way.

use crate::report::{Column, Report};
use crate::samples::Samples;
use crate::service::{CHUNK, Counters, bulk, echo};
use crate::stacks::{Connection, Kind, Stream, Target};
use crate::{Options, sys};
use anyhow::{Context as _, Result, ensure};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const GIB: f64 = (1_u64 << 30) as f64;

/// Streams, and the metrics they are filed under.
const WIDTHS: [(usize, &str, &str); 2] = [(1, "gib_s_1", "cpu_s_gib_1"), (32, "gib_s_32", "cpu_s_gib_32")];

pub(crate) async fn run(options: &Options, seconds: Option<f64>) -> Result<()> {
    let rounds = options.rounds(5, 1);
    let window = Duration::from_secs_f64(seconds.unwrap_or(if options.smoke { 0.2 } else { 2.0 }));
    let kinds = options.kinds();
    let mut samples = Samples::default();
    for _ in 0..rounds {
        for (streams, speed, cpu) in WIDTHS {
            for kind in &kinds {
                let (gib_s, cpu_s_gib) = measure(*kind, streams, window).await.with_context(|| kind.label())?;
                samples.push(*kind, speed, gib_s);
                samples.push(*kind, cpu, cpu_s_gib);
            }
        }
    }

    samples.check(&kinds, &["gib_s_1", "gib_s_32"])?;
    let mut report = Report::new("throughput");
    for (streams, speed, cpu) in WIDTHS {
        let title = format!(
            "{streams} substream(s), or as many connections without a muxer; {} KiB writes, {rounds} rounds of {:.1} s, loopback",
            CHUNK / 1024,
            window.as_secs_f64()
        );
        let columns = [
            Column::Spread(speed, "GiB/s", 2),
            Column::Spread(cpu, "CPU s/GiB, both ends", 2),
            Column::Times(speed, "GiB/s ÷ knock"),
            Column::Times(cpu, "CPU ÷ knock"),
        ];
        report.table(&title, &samples, &kinds, &columns);
    }
    let theirs = [
        ("noise", Kind::Noise),
        ("tls", Kind::TlsShipped),
        ("quic", Kind::Quic),
        ("rawtls", Kind::RawTls),
    ];
    for (name, kind) in theirs {
        report.ratio(&format!("throughput_vs_{name}"), &samples, "gib_s_1", Kind::Knock, kind);
        report.ratio(
            &format!("throughput32_vs_{name}"),
            &samples,
            "gib_s_32",
            Kind::Knock,
            kind,
        );
        report.ratio(
            &format!("throughput_cpu_vs_{name}"),
            &samples,
            "cpu_s_gib_1",
            Kind::Knock,
            kind,
        );
        report.ratio(
            &format!("throughput32_cpu_vs_{name}"),
            &samples,
            "cpu_s_gib_32",
            Kind::Knock,
            kind,
        );
    }
    report.finish(options.json())
}

/// GiB/s and CPU s/GiB over `window`, counted where the bytes arrive, once all streams run.
pub(crate) async fn measure(kind: Kind, streams: usize, window: Duration) -> Result<(f64, f64)> {
    let counters = Arc::new(Counters::default());
    let target = kind
        .endpoint()?
        .listen(Ipv4Addr::LOCALHOST.into(), counters.clone())
        .await?;
    let (connections, opened) = open(kind, &target, streams).await?;
    let mut senders = JoinSet::new();
    for mut stream in opened {
        senders.spawn(async move { bulk(&mut stream, u64::MAX).await });
    }
    tokio::time::sleep(window / 10).await;

    let (bytes, cpu, start) = (counters.swallowed(), sys::cpu(), Instant::now());
    tokio::time::sleep(window).await;
    let gib = (counters.swallowed() - bytes) as f64 / GIB;
    let (cpu, wall) = ((sys::cpu() - cpu).as_secs_f64(), start.elapsed().as_secs_f64());
    ensure!(gib > 0.0, "nothing arrived");
    ensure!(senders.try_join_next().is_none(), "a stream broke");

    senders.shutdown().await;
    drop(connections);
    counters.gone().await;
    Ok((gib / wall, cpu / gib))
}

/// Streams that have echoed, and what keeps them open.
async fn open(kind: Kind, target: &Target, streams: usize) -> Result<(Vec<Connection>, Vec<Stream>)> {
    let mut node = kind.endpoint()?;
    let (mut connections, mut opened) = (Vec::new(), Vec::new());
    for _ in 0..streams {
        if connections.is_empty() || !kind.is_muxed() {
            connections.push(node.dial(target).await?);
        }
        let connection = connections.last_mut().context("just dialled")?;
        let mut stream = connection.open().await?;
        echo(&mut stream).await?;
        opened.push(stream);
    }
    Ok((connections, opened))
}
