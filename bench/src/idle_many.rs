//! A listener that holds thousands of idle connections. The dialers live in another process.

use crate::report::{Report, markdown};
use crate::samples::{Samples, median};
use crate::service::{Counters, echo};
use crate::stacks::{Kind, Target};
use crate::{Options, sys};
use anyhow::{Context as _, Result};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const STACKS: [Kind; 3] = [Kind::Knock, Kind::Noise, Kind::Tls];

/// Descriptors that are not connections: the runtime's, the listener's, the three standard ones.
const SPARE_FILES: u64 = 64;

pub(crate) async fn run(options: &Options) -> Result<()> {
    let wanted: [usize; 2] = if options.smoke { [20, 100] } else { [1_000, 10_000] };
    let idle = Duration::from_secs_f64(if options.smoke { 0.3 } else { 10.0 });
    // One takes half a minute for each size, and memory hardly varies.
    let rounds = options.rounds(1, 1);
    let fits = usize::try_from(sys::raise_open_files().saturating_sub(SPARE_FILES))?;
    let kinds: Vec<Kind> = options
        .kinds()
        .into_iter()
        .filter(|kind| STACKS.contains(kind))
        .collect();

    let mut report = Report::new("idle-many");
    let head = [
        "stack",
        "connections",
        "KiB each",
        "MiB in all",
        "CPU to accept, ms each",
        "CPU idle, ms per s",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for wanted in wanted {
        let connections = wanted.min(fits);
        if connections < wanted {
            println!("\nonly {connections} of {wanted} connections fit the limit of open files (`ulimit -Hn`)");
        }
        let mut samples = Samples::default();
        for _ in 0..rounds {
            for kind in &kinds {
                let cost = measure(*kind, connections, idle).await.with_context(|| kind.label())?;
                let each = connections as f64;
                samples.push(*kind, "kib", cost.bytes / 1024.0 / each);
                samples.push(*kind, "mib", cost.bytes / 1024.0 / 1024.0);
                samples.push(*kind, "accept_ms", cost.accepting.as_secs_f64() * 1e3 / each);
                samples.push(*kind, "idle_ms_s", cost.idling.as_secs_f64() * 1e3 / idle.as_secs_f64());
            }
        }
        for kind in &kinds {
            let cell = |metric, digits: usize| {
                let values = samples.of(*kind, metric).unwrap_or_default();
                format!("{:.digits$}", median(values))
            };
            rows.push(vec![
                kind.about().to_owned(),
                connections.to_string(),
                cell("kib", 1),
                cell("mib", 1),
                cell("accept_ms", 3),
                cell("idle_ms_s", 2),
            ]);
        }
        for (name, theirs) in [("noise", Kind::Noise), ("tls", Kind::Tls)] {
            report.ratio(
                &format!("idle_many_{connections}_vs_{name}"),
                &samples,
                "kib",
                Kind::Knock,
                theirs,
            );
        }
    }
    println!(
        "\nOne listener process; the dialers in another; {rounds} round(s), {:.1} s idle\n\n{}",
        idle.as_secs_f64(),
        markdown(&rows)
    );
    report.attach("rows", serde_json::to_value(&rows)?);
    report.finish(options.json())
}

struct Cost {
    bytes: f64,
    accepting: Duration,
    idling: Duration,
}

async fn measure(kind: Kind, connections: usize, idle: Duration) -> Result<Cost> {
    let mut listener = Process::start(&["many-listener", kind.label()])?;
    let target = listener.line().await?;
    let before = listener.usage().await?;
    let mut dialer = Process::start(&["many-dialer", kind.label(), &target, &connections.to_string()])?;
    dialer.line().await?;
    let connected = listener.usage().await?;
    tokio::time::sleep(idle).await;
    let after = listener.usage().await?;
    Ok(Cost {
        bytes: connected.0.saturating_sub(before.0) as f64,
        accepting: connected.1 - before.1,
        idling: after.1.saturating_sub(connected.1),
    })
}

/// This program once more, talked to by lines. Ends with the value.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("piped")?;
        Ok(Self {
            child,
            lines: lines(stdout),
        })
    }

    pub(crate) async fn line(&mut self) -> Result<String> {
        self.lines.next_line().await?.context("the process has ended")
    }

    /// Resident bytes and CPU time.
    pub(crate) async fn usage(&mut self) -> Result<(u64, Duration)> {
        self.child.stdin.as_mut().context("piped")?.write_all(b"\n").await?;
        let line = self.line().await?;
        let (bytes, nanos) = line.split_once(' ').context("two numbers")?;
        Ok((bytes.parse()?, Duration::from_nanos(nanos.parse()?)))
    }
}

fn lines<R: AsyncRead + Unpin>(reader: R) -> Lines<BufReader<R>> {
    BufReader::new(reader).lines()
}

/// The process that is measured: tells where it listens, and for each line it reads what it has used.
pub(crate) async fn listener(kind: Kind) -> Result<()> {
    let target = kind
        .endpoint()?
        .listen(Ipv4Addr::LOCALHOST.into(), Arc::new(Counters::default()))
        .await?;
    println!("{target}");
    let mut questions = lines(tokio::io::stdin());
    while questions.next_line().await?.is_some() {
        println!("{} {}", sys::resident()?, sys::cpu().as_nanos());
    }
    Ok(())
}

/// The process of the dialers: connects, says so, and stays until its input ends.
pub(crate) async fn dialer(kind: Kind, target: &Target, connections: usize) -> Result<()> {
    let mut node = kind.endpoint()?;
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut connection = node.dial(target).await?;
        let mut stream = connection.open().await?;
        echo(&mut stream).await?;
        connection.release(stream);
        open.push(connection);
    }
    println!("{}", open.len());
    while lines(tokio::io::stdin()).next_line().await?.is_some() {}
    Ok(())
}
