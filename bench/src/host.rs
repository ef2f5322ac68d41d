//! Messages between two hosts of one kind, each in a process of its own.

pub(crate) mod child;
mod raw;
mod recovery;

use crate::samples::{median, min_max};
use crate::stacks::Kind;
use crate::{Options, report, throughput};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Longest wait for an answer of a child.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sizes of messages, and how many may be under way.
const SIZES: [(usize, u64); 4] = [(100, 1024), (1 << 10, 1024), (64 << 10, 256), (1 << 20, 16)];

const STREAMS: usize = 1999;

/// Longest wait for the first message.
const MEETING: Duration = Duration::from_secs(30);

/// Tries, where it does not come.
const MEETINGS: usize = 3;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stack {
    Ours,
    GoV1,
    GoNew,
    Commonware,
    RawTls,
    RawTlsTogether,
}

impl Stack {
    fn about(self) -> &'static str {
        match self {
            Self::Ours => "knock-host",
            Self::GoV1 => "Go ragep2p, production stack",
            Self::GoNew => "Go ragep2p, newer stack",
            Self::Commonware => "commonware-p2p",
            Self::RawTls => "mutual TLS 1.3 alone",
            Self::RawTlsTogether => "the same, both ends in one process",
        }
    }
}

/// The programs of those that messages are sent with.
#[derive(Debug)]
struct Programs {
    go: PathBuf,
    commonware: Option<PathBuf>,
}

impl Programs {
    fn stacks(&self) -> impl Iterator<Item = Stack> {
        let others = self.commonware.as_ref().map(|_| Stack::Commonware);
        [Stack::Ours, Stack::GoV1, Stack::GoNew].into_iter().chain(others)
    }
}

/// Between two dials of a peer, in the measurements that do not wait for one.
const AT_ONCE: Duration = Duration::from_millis(200);

type Samples = BTreeMap<(Stack, String), Vec<f64>>;

/// What of it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Messages a second, GiB/s, CPU and memory.
    Messages,
    /// Until a message arrives again after the connection was cut.
    Recovery,
}

pub(crate) async fn run(options: &Options, seconds: Option<f64>, part: Option<Part>, commonware: bool) -> Result<()> {
    let programs = Programs {
        go: build_go()?,
        commonware: commonware.then(build_commonware).transpose()?,
    };
    if part != Some(Part::Recovery) {
        messages(options, seconds, &programs).await?;
    }
    if part != Some(Part::Messages) {
        recovery::run(options, &programs).await?;
    }
    Ok(())
}

async fn messages(options: &Options, seconds: Option<f64>, programs: &Programs) -> Result<()> {
    let rounds = options.rounds(5, 1);
    let window = Duration::from_secs_f64(seconds.unwrap_or(if options.smoke { 0.2 } else { 2.0 }));
    let streams = if options.smoke { 100 } else { STREAMS };
    let mut samples = Samples::new();
    for _ in 0..rounds {
        for stack in programs.stacks() {
            let measured = measure(stack, programs, window, streams).await;
            for (metric, value) in measured.with_context(|| stack.about())? {
                samples.entry((stack, metric)).or_default().push(value);
            }
            if stack == Stack::Ours {
                // Right behind what it is compared with: the machine's speed changes by the minute.
                limits(&mut samples, window).await?;
            }
        }
    }
    print(&samples, rounds, window);
    let ratio = |metric: &str, theirs| {
        let of = |stack| samples.get(&(stack, metric.to_owned()));
        let (ours, theirs): (&Vec<f64>, &Vec<f64>) = (of(Stack::Ours)?, of(theirs)?);
        // Of each round, so that what slows a whole round down cancels out.
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Some(median(&ratios))
    };
    let gib = format!("GiB/s at {}", size_name(1 << 20));
    for (name, metric, theirs) in [
        ("host_msgs100_vs_go", "messages/s at 100 B", Stack::GoV1),
        ("host_gibs_vs_go", &gib, Stack::GoV1),
        ("host_gibs_vs_newer_go", &gib, Stack::GoNew),
        ("host_mem_per_stream_vs_go", "KiB per stream", Stack::GoV1),
        ("host_gibs_vs_rawtls", &gib, Stack::RawTls),
        ("host_gibs_vs_rawtls_in_one_process", &gib, Stack::RawTlsTogether),
        ("host_msgs100_vs_commonware", "messages/s at 100 B", Stack::Commonware),
        ("host_gibs_vs_commonware", &gib, Stack::Commonware),
    ] {
        if theirs == Stack::Commonware && programs.commonware.is_none() {
            continue;
        }
        let value = ratio(metric, theirs).with_context(|| format!("no {metric}"))?;
        println!("RESULT {name} {value:.3}");
    }
    Ok(())
}

/// What TLS can do.
async fn limits(samples: &mut Samples, window: Duration) -> Result<()> {
    let (mib_s, cpu) = raw::measure(window).await?;
    let (together, _) = throughput::measure(Kind::RawTls, 1, window).await?;
    for (stack, metric, value) in [
        (Stack::RawTls, "GiB/s", mib_s / 1024.0),
        (Stack::RawTls, "CPU µs/message", cpu * 1e6),
        (Stack::RawTlsTogether, "GiB/s", together),
    ] {
        let metric = format!("{metric} at {}", size_name(1 << 20));
        samples.entry((stack, metric)).or_default().push(value);
    }
    Ok(())
}

fn print(samples: &Samples, rounds: usize, window: Duration) {
    println!(
        "\n## host\n\n{rounds} rounds of {:.1} s, loopback; median (lowest–highest)\n",
        window.as_secs_f64()
    );
    let mut rows = vec![vec!["".to_owned(), "stack".to_owned(), "value".to_owned()]];
    let mut by_metric: Vec<_> = samples.iter().collect();
    by_metric.sort_by(|((a, x), _), ((b, y), _)| x.cmp(y).then(a.cmp(b)));
    for ((stack, metric), values) in by_metric {
        let (min, max) = min_max(values);
        let value = format!("{:.2} ({min:.2}–{max:.2})", median(values));
        rows.push(vec![metric.clone(), stack.about().to_owned(), value]);
    }
    println!("{}", report::markdown(&rows));
}

fn size_name(size: usize) -> String {
    match size {
        ..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{} KiB", size >> 10),
        _ => format!("{} MiB", size >> 20),
    }
}

/// One that sends and one that counts, of which only the first knows where the other is.
/// Two hosts on whose stream "x" messages arrive, and what `way` puts between them: it is told where the sink listens and says
/// where to dial.
///
/// The newer Go stack is begun anew where none arrive: it ignores the opens that reach it before its loop knows of the connection,
/// and is silent as long as that lasts (`chConnTerminated == nil` in `peerLoop` of `ragep2pnew/ragep2p.go`; on a busy machine about
/// one connection in ten).
async fn pair<W>(
    stack: Stack,
    programs: &Programs,
    dial_interval: Duration,
    way: impl AsyncFn(String) -> Result<(W, String)>,
) -> Result<(Node, Node, W)> {
    for _ in 0..MEETINGS {
        let mut sender = Node::start(stack, programs, 1, dial_interval).await?;
        let mut sink = Node::start(stack, programs, 2, dial_interval).await?;
        let (way, address) = way(sink.listen.clone()).await?;
        if meet(&mut sender, &mut sink, &address).await? {
            return Ok((sender, sink, way));
        }
        ensure!(stack == Stack::GoNew, "no message in {MEETING:?}");
        eprintln!("{}: no message in {MEETING:?}, begun anew", stack.about());
    }
    bail!("no message on {MEETINGS} connections");
}

/// Whether messages arrive on "x" once both have it open.
async fn meet(sender: &mut Node, sink: &mut Node, address: &str) -> Result<bool> {
    let (to, from) = (sink.peer.clone(), sender.peer.clone());
    sender
        .tell(&json!({"cmd": "know", "peer": to, "addr": address}))
        .await?;
    // The sink first: who has no stream to us lets our knock wait.
    sink.open(&from, "x").await?;
    sender.open(&to, "x").await?;
    sink.ask(&json!({"cmd": "sink", "name": "x"}), "done").await?;
    let begun = Instant::now();
    while begun.elapsed() < MEETING {
        if blast(sender, 100, 8, Duration::from_millis(100)).await?.0 > 0.0 {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn measure(stack: Stack, programs: &Programs, window: Duration, streams: usize) -> Result<Vec<(String, f64)>> {
    let (mut sender, mut sink, ()) = pair(stack, programs, AT_ONCE, async |listen| Ok(((), listen))).await?;
    let (to, from) = (sink.peer.clone(), sender.peer.clone());
    // Whatever is made once.
    blast(&mut sender, 100, 1024, window / 4).await?;

    let mut measured = Vec::new();
    for (size, outstanding) in SIZES {
        let before = sender.usage().await?.0 + sink.usage().await?.0;
        let (count, seconds) = blast(&mut sender, size, outstanding, window).await?;
        let cpu = sender.usage().await?.0 + sink.usage().await?.0 - before;
        ensure!(count > 0.0, "nothing arrived");
        let name = size_name(size);
        measured.push((format!("messages/s at {name}"), count / seconds));
        measured.push((format!("CPU µs/message at {name}"), cpu * 1e6 / count));
        if size == 1 << 20 {
            measured.push((
                format!("GiB/s at {name}"),
                count * size as f64 / (1_u64 << 30) as f64 / seconds,
            ));
        }
    }

    if stack == Stack::Commonware {
        // Its channels are there before the network is.
        return Ok(measured);
    }
    let before = sender.usage().await?.1 + sink.usage().await?.1;
    for n in 0..streams {
        sender.open(&to, &n.to_string()).await?;
        sink.open(&from, &n.to_string()).await?;
    }
    let after = sender.usage().await?.1 + sink.usage().await?.1;
    measured.push((
        "KiB per stream".into(),
        (after - before) / 1024.0 / (2 * streams) as f64,
    ));
    Ok(measured)
}

/// Messages that arrived, and in how many seconds.
async fn blast(sender: &mut Node, size: usize, window: u64, time: Duration) -> Result<(f64, f64)> {
    let millis = time.as_millis();
    let blast = json!({"cmd": "blast", "name": "x", "size": size, "window": window, "millis": u64::try_from(millis)?});
    let done = sender.ask(&blast, "blast").await?;
    let field = |name: &str| done[name].as_f64().context("no number");
    Ok((field("count")?, field("seconds")?))
}

/// A host in its process.
struct Node {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    peer: String,
    listen: String,
}

impl Node {
    async fn start(stack: Stack, programs: &Programs, seed: u8, dial_interval: Duration) -> Result<Self> {
        let millis = dial_interval.as_millis();
        let mut command = match stack {
            Stack::Ours => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["host-child", &seed.to_string(), &millis.to_string()]);
                command
            }
            Stack::GoV1 | Stack::GoNew => {
                let mut command = Command::new(&programs.go);
                command.args(["-dial-interval", &format!("{millis}ms")]);
                let name = if stack == Stack::GoV1 { "v1" } else { "new" };
                command.args(["-seed", &hex::encode([seed; 32]), "-stack", name]);
                command.stderr(Stdio::null());
                command
            }
            Stack::Commonware => {
                let mut command = Command::new(programs.commonware.as_ref().context("it was not asked for")?);
                // Its own default is a second, and a multiple of it goes by until it has come back.
                command.args([seed.to_string(), millis.min(1000).to_string()]);
                command
            }
            Stack::RawTls | Stack::RawTlsTogether => bail!("it has no messages"),
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("piped")?;
        let output = BufReader::new(child.stdout.take().context("piped")?).lines();
        let mut node = Self {
            _child: child,
            input,
            output,
            peer: String::new(),
            listen: String::new(),
        };
        let ready = node.wait("ready").await?;
        let text = |name: &str| ready[name].as_str().map(str::to_owned).context("no text");
        (node.peer, node.listen) = (text("peer_id")?, text("listen")?);
        Ok(node)
    }

    async fn tell(&mut self, command: &Value) -> Result<()> {
        Ok(self.input.write_all(format!("{command}\n").as_bytes()).await?)
    }

    async fn ask(&mut self, command: &Value, event: &str) -> Result<Value> {
        self.tell(command).await?;
        self.wait(event).await
    }

    async fn wait(&mut self, event: &str) -> Result<Value> {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await??;
            let seen: Value = serde_json::from_str(&line.context("it ended")?)?;
            if seen["event"] == "error" {
                bail!("{seen}");
            }
            if seen["event"] == event {
                return Ok(seen);
            }
        }
    }

    async fn open(&mut self, peer: &str, name: &str) -> Result<()> {
        // As many messages as may be under way, and some acknowledgements. Only "x" carries any.
        let buffers = if name == "x" { 2048 } else { 10 };
        let open = json!({
            "cmd": "open", "peer": peer, "name": name, "out": buffers, "in": buffers, "max": 1 << 20,
            "msg_rate": 1e9, "msg_cap": 2_000_000_000, "bytes_rate": 1e12, "bytes_cap": 4_000_000_000_u32,
        });
        self.ask(&open, "done").await.map(drop)
    }

    /// Seconds of CPU and bytes of memory.
    async fn usage(&mut self) -> Result<(f64, f64)> {
        let usage = self.ask(&json!({"cmd": "usage"}), "usage").await?;
        let field = |name: &str| usage[name].as_f64().context("no number");
        Ok((field("seconds")?, field("memory")?))
    }
}

fn build_go() -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("ragep2p-host-{}", std::process::id()));
    let built = std::process::Command::new("go")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/go/ragep2p-host"))
        .args(["build", "-trimpath", "-o"])
        .arg(&path)
        .arg(".")
        .status()
        .context("Go 1.24 or newer is needed")?;
    ensure!(built.success(), "go build failed");
    Ok(path)
}

/// By itself, in a workspace of its own: hundreds of crates that nothing else here needs.
fn build_commonware() -> Result<PathBuf> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/commonware/Cargo.toml");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("commonware/target");
    let built = std::process::Command::new("cargo")
        .args([
            "build",
            "--release",
            "--locked",
            "--manifest-path",
            manifest,
            "--target-dir",
        ])
        .arg(&target)
        .status()?;
    ensure!(built.success(), "cargo build failed");
    Ok(target.join("release/commonware-child"))
}
