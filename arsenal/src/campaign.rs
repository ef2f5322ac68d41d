//! Whole scenarios. The listener, the flood and the honest dialers are processes of their own, on cores of their own
//! where there are two, so that what one spends is not charged to another.

use crate::honest::Served;
use crate::sys::{self, KernelTcp, Usage};
use anyhow::{Context as _, Result, bail};
use interop::process::Process;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use crate::scan::{Ran, Scan, scan};

/// The programs that a campaign starts.
#[derive(Debug, Clone)]
pub struct Tools {
    /// `target`.
    pub target: PathBuf,
    /// `flooder`.
    pub flooder: PathBuf,
    /// `honest`.
    pub honest: PathBuf,
}

impl Tools {
    /// Those in `directory`.
    ///
    /// # Errors
    ///
    /// Names the first that is not there.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let find = |name| {
            let path = directory.join(name);
            match path.is_file() {
                true => Ok(path),
                false => bail!(
                    "{} is missing; `cargo build -p arsenal` with the same profile makes it",
                    path.display()
                ),
            }
        };
        Ok(Self {
            target: find("target")?,
            flooder: find("flooder")?,
            honest: find("honest")?,
        })
    }

    /// Those beside the running program, where cargo puts all of a profile's.
    ///
    /// # Errors
    ///
    /// As [`Tools::in_directory`].
    pub fn beside_this_program() -> Result<Self> {
        let program = std::env::current_exe()?;
        Self::in_directory(program.parent().context("a program lies in a directory")?)
    }
}

/// Which listener stands in the flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stack {
    /// libp2p-knock.
    Knock,
    /// Stock libp2p, for comparison.
    Noise,
}

impl Stack {
    fn name(self) -> &'static str {
        match self {
            Self::Knock => "knock",
            Self::Noise => "noise",
        }
    }
}

/// One flood, and the honest dialers in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// The listener.
    pub stack: Stack,
    /// Networks that flood.
    pub flood_prefixes: u16,
    /// Bogus knocks a second.
    pub rate: f64,
    /// Whether their boxes open, as those of somebody who knows the PeerId.
    pub insiders: bool,
    /// Sockets that say nothing, beside the flood.
    pub half_open: usize,
    /// Networks of honest dialers.
    pub honest_prefixes: u16,
    /// Whether those have authenticated before the flood begins.
    pub authenticated_before: bool,
    /// Honest dials in the flood.
    pub dials: usize,
    /// And before it.
    pub idle_dials: usize,
    /// Honest dials a second.
    pub dial_rate: f64,
    /// Most unauthenticated sockets of the listener.
    pub max_waiting: usize,
    /// After which time it closes them, in milliseconds.
    pub close_time_ms: u64,
}

impl Scenario {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            stack: Stack::Knock,
            flood_prefixes: 16,
            rate: 20_000.0,
            insiders: false,
            half_open: 10_000,
            honest_prefixes: 32,
            authenticated_before: false,
            dials: 1000,
            idle_dials: 500,
            dial_rate: 50.0,
            max_waiting: 8192,
            close_time_ms: 120_000,
        }
    }

    /// (a) Few networks flood, honest dialers come from others.
    pub fn few_prefixes() -> Self {
        Self::new("few-prefixes")
    }

    /// (b) A botnet of thousands of networks.
    pub fn botnet() -> Self {
        Self {
            flood_prefixes: 4096,
            ..Self::new("botnet")
        }
    }

    /// (c) Insiders spend the listener's budget of Diffie-Hellman operations; the honest have authenticated before.
    pub fn insiders() -> Self {
        Self {
            flood_prefixes: 4096,
            rate: 4000.0,
            insiders: true,
            authenticated_before: true,
            ..Self::new("insiders")
        }
    }

    /// The three.
    pub fn all() -> [Self; 3] {
        [Self::few_prefixes(), Self::botnet(), Self::insiders()]
    }

    /// The same for so long only, and with so few half-open sockets, that it shows merely that everything runs.
    #[must_use]
    pub fn smoke(self) -> Self {
        Self {
            half_open: 100,
            dials: 40,
            idle_dials: 40,
            honest_prefixes: 4,
            ..self
        }
    }
}

/// What was measured in a flood.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloodReport {
    /// The scenario's name.
    pub scenario: String,
    /// Bogus knocks a second, as reached.
    pub rate: f64,
    /// Bogus connections that found the listener's accept queue full. Honest ones wait there too then.
    pub queue_full: u64,
    /// Sockets that said nothing and stood when the flood ended.
    pub half_open: usize,
    /// Share of honest dials that succeeded at once.
    pub honest_first_try: f64,
    /// Share that succeeded within three tries.
    pub honest_within_three: f64,
    /// Time of an honest dial.
    pub p50_ms: f64,
    /// Time of an honest dial.
    pub p99_ms: f64,
    /// The same without a flood.
    pub idle_p50_ms: f64,
    /// The same without a flood.
    pub idle_p99_ms: f64,
    /// CPU time of the listener, as a share of one core.
    pub listener_cpu_share: f64,
    /// Time in which it could have run and other programs had its core, as a share; where the kernel says so. When this
    /// is more than nothing, the times of the dialers are the machine's as well.
    pub listener_waited_share: Option<f64>,
    /// Memory of the listener's process: the most that was seen, less what it had before.
    pub rss_mib: f64,
    /// The kernel's, both ends of every connection: the most that was seen, less what there was before.
    pub kernel_mib: f64,
    /// The listener's part of that, by the number of its sockets among all.
    pub listener_kernel_mib: f64,
    /// Open descriptors of the listener: the most that was seen.
    pub open_files: usize,
}

impl FloodReport {
    /// What the flood costs the machine of the listener, in process and kernel.
    pub fn listener_mib(&self) -> f64 {
        self.rss_mib + self.listener_kernel_mib
    }
}

/// A program that does not answer in this time has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs one scenario. Blocks for some seconds more than all its dials take.
///
/// # Errors
///
/// When a program cannot be started or does not do what it should: with all it wrote.
pub fn flood(tools: &Tools, scenario: &Scenario) -> Result<FloodReport> {
    // One core for the listener, the other for everybody else; on a machine with one the figures mean little.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (listener_core, other_core) = (0, 1 % cores);

    let mut listener = Listener::start(tools, scenario, listener_core)?;
    let idle_dials = scenario.idle_dials;
    let mut honest = Honest::start(tools, scenario, &listener, other_core, (idle_dials, false))?;
    let (idle, _) = honest.serve(&mut listener)?;
    let dials = (scenario.dials, scenario.authenticated_before);
    let mut honest = Honest::start(tools, scenario, &listener, other_core, dials)?;

    let before = listener.figures()?;
    let mut flooder = start_flooder(tools, scenario, &listener, other_core)?;
    let begins = PATIENCE + Duration::from_secs_f64(scenario.half_open as f64 / 1000.0);
    flooder.wait_for(|event| event["event"] == "flooding", begins)?;

    let (start, started) = (listener.figures()?, Instant::now());
    let (served, most) = honest.serve(&mut listener)?;
    let (end, elapsed) = (listener.figures()?, started.elapsed());

    flooder.send(&Value::from("stop"))?;
    let flooded = flooder.wait_for(|event| event["event"] == "done", PATIENCE)?;
    let share = |part: usize| part as f64 / served.dials.max(1) as f64;
    let kib_over = |now: u64, then: u64| now.saturating_sub(then) as f64 / 1024.0;
    let kernel_mib = (most.kernel_tcp.mib() - before.kernel_tcp.mib()).max(0.0);
    let opened = most.usage.open_files.saturating_sub(before.usage.open_files);
    let sockets = most.kernel_tcp.sockets.saturating_sub(before.kernel_tcp.sockets);
    Ok(FloodReport {
        scenario: scenario.name.clone(),
        rate: flooded["rate"].as_f64().context("no rate")?,
        queue_full: field(&flooded, "queue_full")?,
        half_open: field(&flooded, "half_open")?,
        honest_first_try: share(served.first_try),
        honest_within_three: share(served.within_three),
        p50_ms: served.p50_ms,
        p99_ms: served.p99_ms,
        idle_p50_ms: idle.p50_ms,
        idle_p99_ms: idle.p99_ms,
        listener_cpu_share: sys::share(&start.usage, &end.usage, elapsed),
        listener_waited_share: sys::waited_share(&start.usage, &end.usage, elapsed),
        rss_mib: kib_over(most.usage.rss_kib, before.usage.rss_kib),
        kernel_mib,
        listener_kernel_mib: kernel_mib * (opened as f64 / sockets.max(1) as f64).min(1.0),
        open_files: most.usage.open_files,
    })
}

/// What `target` says of itself and the kernel.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Figures {
    usage: Usage,
    kernel_tcp: KernelTcp,
}

impl Figures {
    fn most(self, other: Self) -> Self {
        let (a, b) = (self.usage, other.usage);
        Self {
            usage: Usage {
                rss_kib: a.rss_kib.max(b.rss_kib),
                cpu_ms: a.cpu_ms.max(b.cpu_ms),
                waited_ms: a.waited_ms.max(b.waited_ms),
                open_files: a.open_files.max(b.open_files),
            },
            kernel_tcp: if self.kernel_tcp.mib() >= other.kernel_tcp.mib() {
                self.kernel_tcp
            } else {
                other.kernel_tcp
            },
        }
    }
}

struct Listener {
    process: Process,
    address: SocketAddr,
    peer: String,
}

impl Listener {
    fn start(tools: &Tools, scenario: &Scenario, core: usize) -> Result<Self> {
        let mut command = Command::new(&tools.target);
        command.arg(scenario.stack.name());
        option(&mut command, "--core", core);
        option(&mut command, "--close-time", scenario.close_time_ms);
        option(&mut command, "--max-waiting", scenario.max_waiting);
        let process = Process::spawn("target", &mut command)?;
        let ready = process.wait_for(|event| event["event"] == "ready", PATIENCE)?;
        Ok(Self {
            address: field(&ready, "address")?,
            peer: field(&ready, "peer")?,
            process,
        })
    }

    fn figures(&mut self) -> Result<Figures> {
        self.process.send(&Value::from("figures"))?;
        let figures = self.process.wait_for(|event| event["event"] == "figures", PATIENCE)?;
        serde_json::from_value(figures).context("figures of another form")
    }
}

struct Honest {
    process: Process,
    lasts: Duration,
}

impl Honest {
    fn start(
        tools: &Tools,
        scenario: &Scenario,
        listener: &Listener,
        core: usize,
        (dials, authenticated): (usize, bool),
    ) -> Result<Self> {
        let mut command = Command::new(&tools.honest);
        command
            .arg(listener.address.to_string())
            .arg(&listener.peer)
            .arg("--supervised");
        option(&mut command, "--stack", scenario.stack.name());
        option(&mut command, "--core", core);
        option(&mut command, "--prefixes", scenario.honest_prefixes);
        option(&mut command, "--dials", dials);
        option(&mut command, "--rate", scenario.dial_rate);
        if authenticated {
            command.arg("--after-authenticated");
        }
        let process = Process::spawn("honest", &mut command)?;
        process.wait_for(|event| event["event"] == "ready", PATIENCE)?;
        let lasts = Duration::try_from_secs_f64(dials as f64 / scenario.dial_rate).context("the dial rate")?;
        Ok(Self { process, lasts })
    }

    /// Lets it dial. Also the most that was seen of the listener's figures meanwhile.
    fn serve(&mut self, listener: &mut Listener) -> Result<(Served, Figures)> {
        self.process.send(&Value::from("go"))?;
        let deadline = Instant::now() + self.lasts + PATIENCE;
        let mut most = listener.figures()?;
        loop {
            let done = self
                .process
                .wait_for(|event| event["event"] == "served", Duration::from_millis(500));
            most = most.most(listener.figures()?);
            match done {
                Ok(served) => return Ok((serde_json::from_value(served).context("figures of another form")?, most)),
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => {}
            }
        }
    }
}

fn start_flooder(tools: &Tools, scenario: &Scenario, listener: &Listener, core: usize) -> Result<Process> {
    let mut command = Command::new(&tools.flooder);
    command.arg(listener.address.to_string()).arg("--supervised");
    option(&mut command, "--core", core);
    // The honest dialers share that core.
    option(&mut command, "--nice", 10);
    option(&mut command, "--rate", scenario.rate);
    option(&mut command, "--prefixes", scenario.flood_prefixes);
    option(&mut command, "--half-open", scenario.half_open);
    option(&mut command, "--seconds", 24 * 3600);
    if scenario.insiders {
        option(&mut command, "--insider", &listener.peer);
    }
    Process::spawn("flooder", &mut command)
}

fn option(command: &mut Command, name: &str, value: impl ToString) {
    command.arg(name).arg(value.to_string());
}

fn field<T: DeserializeOwned>(event: &Value, name: &str) -> Result<T> {
    T::deserialize(&event[name]).with_context(|| format!("no {name} in {event}"))
}
