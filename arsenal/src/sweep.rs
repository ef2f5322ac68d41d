//! Many probes at once, at a steady rate and within a bound of open sockets.

use crate::classes::Record;
use crate::content::Pantry;
use crate::grid::Probe;
use crate::pace::Pace;
use crate::probe::{Limits, run};
use crate::rng::Rng;
use crate::source::Sources;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// How to probe. Which probes is said at [`Sweep::run`].
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The listener.
    pub target: SocketAddr,
    /// Open sockets at once, at most.
    pub in_flight: usize,
    /// Probes a second, at most; 0 for as many as go. A listener whose accept queue overflows looks late, and is not to
    /// blame.
    pub rate: f64,
    /// What a probe waits for.
    pub limits: Limits,
    /// Where probes come from; the kernel chooses if nothing is given, and runs out of ports after some 28,000.
    pub sources: Option<Sources>,
}

/// What came of a sweep.
#[derive(Debug, Default)]
pub struct Swept {
    /// The probes that reached the listener.
    pub records: Vec<Record>,
    /// Those that did not, by what the kernel said. They prove nothing about the listener.
    pub not_connected: BTreeMap<String, u64>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Swept {
    /// Payload bytes from the listener, over all probes.
    pub fn bytes_answered(&self) -> u64 {
        self.records.iter().map(|record| record.outcome.answered).sum()
    }

    /// Probes that got any.
    pub fn probes_answered(&self) -> usize {
        self.records.iter().filter(|record| record.outcome.answered > 0).count()
    }

    /// Probes that never reached the listener.
    pub fn unsent(&self) -> u64 {
        self.not_connected.values().sum()
    }
}

impl Sweep {
    /// Probes that listener with the usual limits.
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            in_flight: 6000,
            rate: 3000.0,
            limits: Limits::default(),
            sources: target
                .ip()
                .is_loopback()
                .then(|| Sources::probes(64))
                .filter(|_| target.is_ipv4()),
        }
    }

    /// Runs every probe of `plan`. `each` sees them as they end, in any order.
    pub async fn run(
        &self,
        pantry: Arc<Pantry>,
        plan: impl Iterator<Item = (Probe, Rng)>,
        mut each: impl FnMut(&Record),
    ) -> Swept {
        let started = Instant::now();
        let mut swept = Swept::default();
        let permits = Arc::new(Semaphore::new(self.in_flight.max(1)));
        let (done, mut ended) = mpsc::channel(1024);
        let mut take = |(probe, result): (Probe, std::io::Result<_>)| match result {
            Ok(outcome) => {
                let record = Record { probe, outcome };
                each(&record);
                swept.records.push(record);
            }
            Err(e) => *swept.not_connected.entry(format!("{:?}", e.kind())).or_default() += 1,
        };
        let mut pace = Pace::new(self.rate);
        for (mut probe, mut rng) in plan {
            pace.wait().await;
            let permit = loop {
                tokio::select! {
                    biased;
                    Some(one) = ended.recv() => take(one),
                    permit = permits.clone().acquire_owned() => break permit,
                }
            };
            let source = self.sources.map(|sources| IpAddr::from(sources.pick(&mut rng)));
            let bytes = pantry.bytes(probe.content, probe.length, &mut rng);
            probe.length = bytes.len();
            let (target, limits, done) = (self.target, self.limits, done.clone());
            tokio::spawn(async move {
                let result = run(target, source, probe, bytes, limits).await;
                drop(permit);
                // Nobody waits any more only if the sweep was dropped.
                let _ = done.send((probe, result)).await;
            });
        }
        drop(done);
        while let Some(one) = ended.recv().await {
            take(one);
        }
        swept.elapsed = started.elapsed();
        swept
    }
}
