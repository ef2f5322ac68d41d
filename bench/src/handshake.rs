//! From the start of a dial to the first byte that comes back on a first substream.

use crate::report::{Column, Report};
use crate::samples::{Samples, median};
use crate::service::{Counters, echo};
use crate::stacks::{Connection, Endpoint, Kind, Stream, Target};
use crate::{Options, sys};
use anyhow::{Context as _, Result};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Dials in a crowd.
const AT_ONCE: usize = 32;
/// Long enough that both workers go to sleep, and with them, on most machines, a core.
const PAUSE: Duration = Duration::from_millis(1);

/// Who dials, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Each dial by a node that has never met the listener, one right after the other.
    First,
    /// One long-lived node, one dial right after the other.
    Redial,
    /// As `first`, 32 at once.
    FirstAtOnce,
    /// As `redial`, 32 at once.
    RedialAtOnce,
    /// As `first`, each after a pause in which the machine goes to sleep.
    FirstAfterPause,
    /// As `redial`, each after such a pause.
    RedialAfterPause,
}

/// How dials follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Steady,
    AtOnce,
    AfterPause,
}

impl Part {
    const ALL: [Self; 6] = [
        Self::First,
        Self::Redial,
        Self::FirstAtOnce,
        Self::RedialAtOnce,
        Self::FirstAfterPause,
        Self::RedialAfterPause,
    ];

    fn is_first(self) -> bool {
        matches!(self, Self::First | Self::FirstAtOnce | Self::FirstAfterPause)
    }

    fn title(self) -> &'static str {
        if self.is_first() { "First contact" } else { "Redial" }
    }

    fn pace(self) -> Pace {
        match self {
            Self::First | Self::Redial => Pace::Steady,
            Self::FirstAtOnce | Self::RedialAtOnce => Pace::AtOnce,
            Self::FirstAfterPause | Self::RedialAfterPause => Pace::AfterPause,
        }
    }

    /// What the samples of wall and CPU time are called.
    fn metrics(self) -> [&'static str; 2] {
        match self {
            Self::First => ["first_wall_us", "first_cpu_us"],
            Self::Redial => ["redial_wall_us", "redial_cpu_us"],
            Self::FirstAtOnce => ["first_at_once_wall_us", "first_at_once_cpu_us"],
            Self::RedialAtOnce => ["redial_at_once_wall_us", "redial_at_once_cpu_us"],
            Self::FirstAfterPause => ["first_after_pause_wall_us", "first_after_pause_cpu_us"],
            Self::RedialAfterPause => ["redial_after_pause_wall_us", "redial_after_pause_cpu_us"],
        }
    }

    /// What the `RESULT` lines of wall and CPU time begin with.
    fn results(self) -> [String; 2] {
        let who = if self.is_first() { "" } else { "_redial" };
        let how = match self.pace() {
            Pace::Steady => "",
            Pace::AtOnce => "_at_once",
            Pace::AfterPause => "_after_pause",
        };
        ["wall", "cpu"].map(|what| format!("handshake_{what}{who}{how}"))
    }
}

struct Listener {
    kind: Kind,
    target: Target,
    counters: Arc<Counters>,
    /// The long-lived node that redials.
    redialer: Endpoint,
}

pub(crate) async fn run(options: &Options, dials: Option<usize>, only: &[Part]) -> Result<()> {
    let rounds = options.rounds(9, 1);
    let dials = dials.unwrap_or(if options.smoke { 3 } else { 100 });
    let parts: Vec<_> = Part::ALL
        .into_iter()
        .filter(|part| only.is_empty() || only.contains(part))
        .collect();
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
        listener.one_by_one(false, 2, None).await?;
    }

    let mut samples = Samples::default();
    for _ in 0..rounds {
        for listener in &mut listeners {
            let kind = listener.kind;
            for part in &parts {
                let measured = listener.measure(*part, dials).await.with_context(|| kind.label())?;
                for (metric, value) in part.metrics().into_iter().zip(measured) {
                    samples.push(kind, metric, value);
                }
            }
        }
    }
    report(options, &samples, &parts, rounds, dials)
}

fn report(options: &Options, samples: &Samples, parts: &[Part], rounds: usize, dials: usize) -> Result<()> {
    let kinds = options.kinds();
    let mut report = Report::new("handshake");
    for part in parts {
        let [wall, cpu] = part.metrics();
        samples.check(&kinds, &[wall, cpu])?;
        let how = match part.pace() {
            Pace::Steady => format!("{dials} dials, one after the other"),
            Pace::AtOnce => format!("{} times {AT_ONCE} dials at once", crowds(dials)),
            Pace::AfterPause => format!("{dials} dials, each after a pause of {PAUSE:?}"),
        };
        let title = part.title();
        let title =
            format!("{title}: dial to first echo, µs for each; {rounds} rounds of {how}, loopback, CPU of both ends");
        let columns = [
            Column::Spread(wall, "wall", 0),
            Column::Spread(cpu, "CPU", 0),
            Column::Times(wall, "wall ÷ knock"),
            Column::Times(cpu, "CPU ÷ knock"),
        ];
        report.table(&title, samples, &kinds, &columns);
    }
    for part in parts {
        for (prefix, metric) in part.results().into_iter().zip(part.metrics()) {
            for (theirs, kind) in [
                ("noise", Kind::Noise),
                ("tls", Kind::Tls),
                ("tls_shipped", Kind::TlsShipped),
                ("quic", Kind::Quic),
                ("rawtls", Kind::RawTls),
            ] {
                for (ours, of) in [("vs", Kind::Knock), ("v2_vs", Kind::KnockV2)] {
                    report.ratio(&format!("{prefix}_{ours}_{theirs}"), samples, metric, of, kind);
                }
            }
            let name = format!("{prefix}_x25519_vs_rawtls");
            report.ratio(&name, samples, metric, Kind::KnockX25519, Kind::RawTlsX25519);
        }
    }
    report.finish(options.json())
}

impl Listener {
    /// Wall and CPU time of one dial in µs.
    async fn measure(&mut self, part: Part, dials: usize) -> Result<[f64; 2]> {
        match part.pace() {
            Pace::Steady => self.one_by_one(part.is_first(), dials, None).await,
            Pace::AtOnce => self.at_once(part.is_first(), crowds(dials)).await,
            Pace::AfterPause => self.one_by_one(part.is_first(), dials, Some(PAUSE)).await,
        }
    }

    /// By nodes that have never met the listener, made before the clock runs, or by the one that has.
    async fn one_by_one(&mut self, first: bool, dials: usize, pause: Option<Duration>) -> Result<[f64; 2]> {
        let mut nodes = self.nodes(if first { dials } else { 0 })?;
        let mut times = Vec::new();
        for n in 0..dials {
            let node = nodes.get_mut(n).unwrap_or(&mut self.redialer);
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            times.push(dial(node, &self.target, &self.counters).await?);
        }
        Ok(medians(&times))
    }

    async fn at_once(&mut self, first: bool, crowds: usize) -> Result<[f64; 2]> {
        let mut times = Vec::new();
        for _ in 0..crowds {
            let mut nodes = self.nodes(if first { AT_ONCE } else { 0 })?;
            let dials = (0..AT_ONCE).map(|n| {
                let node = nodes.get_mut(n).unwrap_or(&mut self.redialer);
                node.dialling(&self.target)
            });
            times.push(crowd(dials, &self.counters).await?);
        }
        Ok(medians(&times))
    }

    fn nodes(&self, n: usize) -> Result<Vec<Endpoint>> {
        (0..n).map(|_| self.kind.endpoint()).collect()
    }
}

/// How many crowds make about so many dials.
fn crowds(dials: usize) -> usize {
    (dials / AT_ONCE).max(1)
}

/// Wall and CPU time of one connection up to its first echo. Its end is not counted.
async fn dial(node: &mut Endpoint, target: &Target, counters: &Counters) -> Result<(Duration, Duration)> {
    let (wall, cpu) = (Instant::now(), sys::cpu());
    let echoed = echoed(node.dial(target)).await?;
    let times = (wall.elapsed(), sys::cpu() - cpu);
    drop(echoed);
    counters.gone_awake().await;
    Ok(times)
}

/// What one of many connections takes that are dialled at once, each up to its first echo. Both workers are busy all the
/// time, so nobody waits to be woken, which costs more than a signature where one connection is alone.
async fn crowd<D>(dials: impl Iterator<Item = Result<D>>, counters: &Counters) -> Result<(Duration, Duration)>
where
    D: Future<Output = Result<Connection>> + Send + 'static,
{
    let (wall, cpu) = (Instant::now(), sys::cpu());
    let mut tasks = JoinSet::new();
    for dial in dials {
        tasks.spawn(echoed(dial?));
    }
    let mut connections = Vec::new();
    while let Some(connected) = tasks.join_next().await {
        connections.push(connected??);
    }
    let count = u32::try_from(connections.len())?;
    let times = (wall.elapsed() / count, (sys::cpu() - cpu) / count);
    drop(connections);
    counters.gone_awake().await;
    Ok(times)
}

/// A dial up to its first echo.
async fn echoed(dial: impl Future<Output = Result<Connection>>) -> Result<(Stream, Connection)> {
    let mut connection = dial.await?;
    let mut stream = connection.open().await?;
    echo(&mut stream).await?;
    Ok((stream, connection))
}

fn medians(times: &[(Duration, Duration)]) -> [f64; 2] {
    let micros = |durations: Vec<Duration>| {
        let all: Vec<_> = durations.iter().map(|duration| duration.as_secs_f64() * 1e6).collect();
        median(&all)
    };
    let (wall, cpu) = times.iter().copied().unzip();
    [micros(wall), micros(cpu)]
}
