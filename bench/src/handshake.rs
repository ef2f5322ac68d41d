//! From the start of a dial to the first byte that comes back on a first substream.

use crate::report::{Column, Report};
use crate::samples::{Samples, median};
use crate::service::{Counters, echo};
use crate::stacks::{Endpoint, Kind, Target};
use crate::{Options, sys};
use anyhow::{Context as _, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Listener {
    kind: Kind,
    target: Target,
    counters: Arc<Counters>,
    /// The long-lived node that redials.
    redialer: Endpoint,
}

pub(crate) async fn run(options: &Options, dials: Option<usize>, redial_only: bool) -> Result<()> {
    let rounds = options.rounds(9, 1);
    let dials = dials.unwrap_or(if options.smoke { 3 } else { 100 });
    let mut listeners = Vec::new();
    for kind in options.kinds() {
        let counters = Arc::new(Counters::default());
        let target = kind
            .endpoint()?
            .listen(Ipv4Addr::LOCALHOST.into(), counters.clone())
            .await?;
        let redialer = kind.endpoint()?;
        listeners.push(Listener {
            kind,
            target,
            counters,
            redialer,
        });
    }
    // Code and caches warm, and a first redial that has nothing to resume.
    for listener in &mut listeners {
        listener.redial(2).await?;
    }

    let mut samples = Samples::default();
    for _ in 0..rounds {
        for listener in &mut listeners {
            let kind = listener.kind;
            if !redial_only {
                let (wall, cpu) = listener.first_contact(dials).await.with_context(|| kind.label())?;
                samples.push(kind, "first_wall_us", wall);
                samples.push(kind, "first_cpu_us", cpu);
            }
            let (wall, cpu) = listener.redial(dials).await.with_context(|| kind.label())?;
            samples.push(kind, "redial_wall_us", wall);
            samples.push(kind, "redial_cpu_us", cpu);
        }
    }

    let kinds = options.kinds();
    samples.check(&kinds, &["redial_cpu_us"])?;
    let mut report = Report::new("handshake");
    for (title, wall, cpu) in [
        ("First contact", "first_wall_us", "first_cpu_us"),
        ("Redial", "redial_wall_us", "redial_cpu_us"),
    ] {
        let title =
            format!("{title}: dial to first echo, µs; {rounds} rounds of {dials} dials, loopback, CPU of both ends");
        let columns = [
            Column::Spread(wall, "wall", 0),
            Column::Spread(cpu, "CPU", 0),
            Column::Times(wall, "wall ÷ knock"),
            Column::Times(cpu, "CPU ÷ knock"),
        ];
        report.table(&title, &samples, &kinds, &columns);
    }
    for (prefix, metric) in [
        ("handshake_cpu", "first_cpu_us"),
        ("handshake_cpu_redial", "redial_cpu_us"),
        ("handshake_wall", "first_wall_us"),
    ] {
        for (theirs, kind) in [
            ("noise", Kind::Noise),
            ("tls", Kind::Tls),
            ("tls_shipped", Kind::TlsShipped),
            ("quic", Kind::Quic),
            ("rawtls", Kind::RawTls),
        ] {
            report.ratio(&format!("{prefix}_vs_{theirs}"), &samples, metric, Kind::Knock, kind);
            report.ratio(
                &format!("{prefix}_v2_vs_{theirs}"),
                &samples,
                metric,
                Kind::KnockV2,
                kind,
            );
        }
        report.ratio(
            &format!("{prefix}_x25519_vs_rawtls"),
            &samples,
            metric,
            Kind::KnockX25519,
            Kind::RawTlsX25519,
        );
    }
    report.finish(options.json())
}

impl Listener {
    /// Each dial by a node that has never met the listener. The nodes are made before the clock runs.
    async fn first_contact(&mut self, dials: usize) -> Result<(f64, f64)> {
        let nodes = (0..dials).map(|_| self.kind.endpoint()).collect::<Result<Vec<_>>>()?;
        let mut times = Vec::new();
        for mut node in nodes {
            times.push(dial(&mut node, &self.target, &self.counters).await?);
        }
        Ok(medians(&times))
    }

    async fn redial(&mut self, dials: usize) -> Result<(f64, f64)> {
        let mut times = Vec::new();
        for _ in 0..dials {
            times.push(dial(&mut self.redialer, &self.target, &self.counters).await?);
        }
        Ok(medians(&times))
    }
}

/// Wall and CPU time of one connection up to its first echo. Its end is not counted.
async fn dial(node: &mut Endpoint, target: &Target, counters: &Counters) -> Result<(Duration, Duration)> {
    let (wall, cpu) = (Instant::now(), sys::cpu());
    let mut connection = node.dial(target).await?;
    let mut stream = connection.open().await?;
    echo(&mut stream).await?;
    let times = (wall.elapsed(), sys::cpu() - cpu);
    drop((stream, connection));
    counters.gone().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok(times)
}

fn medians(times: &[(Duration, Duration)]) -> (f64, f64) {
    let of = |pick: fn(&(Duration, Duration)) -> Duration| {
        median(
            &times
                .iter()
                .map(|both| pick(both).as_secs_f64() * 1e6)
                .collect::<Vec<_>>(),
        )
    };
    (of(|both| both.0), of(|both| both.1))
}
