//! Round trips, on a link where they are all that counts.

use crate::Options;
use crate::delay;
use crate::report::{Column, Report};
use crate::samples::Samples;
use crate::service::{Counters, echo};
use crate::stacks::Kind;
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) async fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(5, 1);
    let rtt = Duration::from_millis(100);
    delay::start(rtt / 2)?;
    let kinds = options.kinds_where(|_| true);
    if kinds.contains(&Kind::KnockFastOpen) && !answers_fast_open() {
        println!(
            "\nhere a listener does not answer Fast Open (`sysctl net.ipv4.tcp_fastopen=3`): that row is ordinary TCP"
        );
    }
    let mut samples = Samples::default();
    for kind in &kinds {
        // The first handshake of a process takes aws-lc tens of milliseconds more, to gather entropy: half a round trip
        // here. And the first dial to a host fetches its cookie for Fast Open.
        measure(*kind, rtt, &mut Samples::default())
            .await
            .with_context(|| kind.label())?;
    }
    for _ in 0..rounds {
        for kind in &kinds {
            measure(*kind, rtt, &mut samples).await.with_context(|| kind.label())?;
        }
    }

    samples.check(&kinds, &["dial_rtts", "echo_rtts"])?;
    let mut report = Report::new("rtt");
    let title = format!("Round trips of {} ms, first contact, {rounds} rounds", rtt.as_millis());
    let columns = [
        Column::Spread("dial_rtts", "RTTs until dial returns", 2),
        Column::Spread("echo_rtts", "RTTs to first echo", 2),
        Column::Median("echo_ms", "ms to first echo", 1),
    ];
    report.table(&title, &samples, &kinds, &columns);
    report.value("rtt_echo", &samples, "echo_rtts", Kind::Knock);
    report.value("rtt_echo_fast_open", &samples, "echo_rtts", Kind::KnockFastOpen);
    report.value(
        "rtt_echo_fast_open_hybrid",
        &samples,
        "echo_rtts",
        Kind::KnockFastOpenHybrid,
    );
    report.value("rtt_echo_noise", &samples, "echo_rtts", Kind::Noise);
    report.value("rtt_echo_tls", &samples, "echo_rtts", Kind::TlsShipped);
    report.value("rtt_echo_quic", &samples, "echo_rtts", Kind::Quic);
    report.value("rtt_echo_rawtls", &samples, "echo_rtts", Kind::RawTls);
    report.finish(options.json())
}

/// Whether the kernel hands out cookies to those who dial.
fn answers_fast_open() -> bool {
    const SERVER: u32 = 2;
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen")
        .ok()
        .and_then(|flags| flags.trim().parse::<u32>().ok())
        .is_some_and(|flags| flags & SERVER != 0)
}

async fn measure(kind: Kind, rtt: Duration, samples: &mut Samples) -> Result<()> {
    let counters = Arc::new(Counters::default());
    let mut target = kind.endpoint()?.listen(delay::NEAR.into(), counters).await?;
    target.socket = SocketAddr::new(delay::FAR.into(), target.socket.port());
    let mut node = kind.endpoint()?;

    let start = Instant::now();
    let mut connection = node.dial(&target).await?;
    let dialled = start.elapsed();
    let mut stream = connection.open().await?;
    echo(&mut stream).await?;
    let echoed = start.elapsed();

    samples.push(kind, "dial_rtts", dialled.as_secs_f64() / rtt.as_secs_f64());
    samples.push(kind, "echo_rtts", echoed.as_secs_f64() / rtt.as_secs_f64());
    samples.push(kind, "echo_ms", echoed.as_secs_f64() * 1e3);
    Ok(())
}
