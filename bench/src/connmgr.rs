//! The connection manager beside go-libp2p's, each load in a process of its own, in interleaved rounds; then what only
//! ours does: a million peers, and ten thousand real connections.

mod go;
mod loads;
mod million;
mod real;

use crate::Options;
use crate::report::{Report, markdown};
use crate::samples::{median, min_max};
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
pub(crate) use loads::{Child, child};
pub(crate) use real::{Closing, dialer, listener};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// What both managers are made to do. The Go program knows them by the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// Threads tag random peers out of those connected.
    Tag,
    /// One task connects, tags, untags and disconnects while threads tag.
    Contention,
    /// One trim down to half.
    Trim,
    /// One tick of three decaying tags for each peer, and then every value read.
    Decay,
    /// What a peer takes.
    Memory,
    /// One task connects and disconnects.
    Connect,
    /// Ours alone: a million peers.
    Million,
}

impl Load {
    fn label(self) -> &'static str {
        match self {
            Self::Tag => "tag",
            Self::Contention => "contention",
            Self::Trim => "trim",
            Self::Decay => "decay",
            Self::Memory => "memory",
            Self::Connect => "connect",
            Self::Million => "million",
        }
    }
}

/// A load with its numbers.
#[derive(Debug, Clone, Copy)]
struct Case {
    about: &'static str,
    load: Load,
    peers: usize,
    threads: usize,
}

/// The results, for go and for us, of all rounds of one case.
struct Rounds {
    case: Case,
    go: Vec<Value>,
    ours: Vec<Value>,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let rounds = options.rounds(7, 1);
    let length = Duration::from_millis(if options.smoke { 30 } else { 1_000 });
    let mut report = Report::new("connmgr");
    match go::program() {
        Ok(program) => compare(&mut report, &program, rounds, length, options.smoke).await?,
        Err(reason) => {
            ensure!(std::env::var_os("KNOCK_TESTS_MUST_RUN").is_none(), "{reason:#}");
            println!("\nno comparison with go-libp2p: {reason:#}");
        }
    }
    million(&mut report, options).await?;
    real::run(&mut report, options).await?;
    report.finish(options.json())
}

async fn compare(report: &mut Report, program: &Path, rounds: usize, length: Duration, smoke: bool) -> Result<()> {
    let scaled = |peers: usize| if smoke { peers.min(1_000) } else { peers };
    let case = |about, load, peers, threads| Case {
        about,
        load,
        peers: scaled(peers),
        threads,
    };
    let cases = [
        case("tag one of 10,000 connected, 1 thread", Load::Tag, 10_000, 1),
        case("tag one of 10,000 connected, 16 threads", Load::Tag, 10_000, 16),
        case(
            "connect, tag, untag, disconnect; nobody tags",
            Load::Contention,
            5_000,
            0,
        ),
        case(
            "the same while 16 threads tag (upstream's benchmark)",
            Load::Contention,
            5_000,
            16,
        ),
        case("trim 1,000 to half", Load::Trim, 1_000, 0),
        case("trim 10,000 to half", Load::Trim, 10_000, 0),
        case("trim 100,000 to half", Load::Trim, 100_000, 0),
        case("trim 100,000 to half while 16 threads tag", Load::Trim, 100_000, 16),
        case("decay: a tick and a read of 100,000 × 3 tags", Load::Decay, 100_000, 0),
        case("memory of a peer", Load::Memory, 100_000, 0),
        case("connect, disconnect", Load::Connect, 10_000, 0),
    ];
    let mut all: Vec<Rounds> = cases
        .map(|case| Rounds {
            case,
            go: Vec::new(),
            ours: Vec::new(),
        })
        .into();
    for _ in 0..rounds {
        for rounds in &mut all {
            rounds.go.push(go_once(program, rounds.case, length).await?);
            rounds.ours.push(ours_once(rounds.case, length).await?);
        }
    }

    let mut rows = vec![
        ["load", "go-libp2p", "libp2p-connmgr", "times"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut stored = Map::new();
    for rounds in &all {
        let lines = match rounds.case.load {
            Load::Tag | Load::Contention | Load::Connect => vec![rounds.line("", "ns", nanos_per_op)?],
            Load::Trim => {
                let [go, ours] = [&rounds.go, &rounds.ours].map(|all| closed(all));
                ensure!(go == ours && go > 0.0, "go closed {go}, we {ours}");
                vec![rounds.line("", "ms", millis)?]
            }
            Load::Decay => vec![rounds.line("", "ms", |value| Ok(millis(value)? + read_millis(value)?))?],
            Load::Memory => ["connected", "tagged", "early"]
                .into_iter()
                .map(|what| rounds.line(&format!(", {what}"), "bytes", |value| bytes(value, what)))
                .collect::<Result<_>>()?,
            Load::Million => Vec::new(),
        };
        for line in lines {
            rows.push(vec![
                line.about.clone(),
                line.cell(&line.go),
                line.cell(&line.ours),
                line.times(),
            ]);
            stored.insert(
                line.about.clone(),
                json!({ "unit": line.unit, "go": line.go, "ours": line.ours }),
            );
            if let Some(name) = result_name(&rounds.case, &line.about, smoke) {
                let ratio = if name.ends_with("mem_vs_go") {
                    1.0 / line.ratio()
                } else {
                    line.ratio()
                };
                report.result(name, Some(ratio));
            }
        }
    }
    println!(
        "\nThe same load on both managers, each in a process of its own; {rounds} rounds, median (lowest–highest); times: how \
         many times less ours takes\n\n{}",
        markdown(&rows)
    );
    report.attach("vs_go", Value::Object(stored));
    Ok(())
}

/// Which `RESULT` a line is. In a smoke run all trims are of one size, and the last one stands for it.
fn result_name(case: &Case, about: &str, smoke: bool) -> Option<&'static str> {
    Some(match (case.load, case.threads) {
        (Load::Tag, 1) => "connmgr_tag_1_thread_speedup_vs_go",
        (Load::Tag, _) => "connmgr_tag_speedup_vs_go",
        (Load::Contention, 0) => "connmgr_churn_speedup_vs_go",
        (Load::Contention, _) => "connmgr_contention_speedup_vs_go",
        (Load::Trim, 0) if about.contains("100,000") => "connmgr_trim_speedup_vs_go",
        (Load::Trim, 16) if !smoke => "connmgr_trim_tagging_speedup_vs_go",
        (Load::Decay, _) => "connmgr_decay_speedup_vs_go",
        (Load::Memory, _) if about.ends_with("tagged") => "connmgr_mem_vs_go",
        (Load::Memory, _) if about.ends_with("early") => "connmgr_early_mem_vs_go",
        (Load::Connect, _) => "connmgr_connect_speedup_vs_go",
        _ => return None,
    })
}

/// One row of the table.
struct Line {
    about: String,
    unit: &'static str,
    go: Vec<f64>,
    ours: Vec<f64>,
}

impl Rounds {
    fn line(&self, suffix: &str, unit: &'static str, of: impl Fn(&Value) -> Result<f64>) -> Result<Line> {
        let all = |values: &[Value]| values.iter().map(&of).collect::<Result<Vec<f64>>>();
        Ok(Line {
            about: format!("{}{suffix}", self.case.about),
            unit,
            go: all(&self.go)?,
            ours: all(&self.ours)?,
        })
    }
}

impl Line {
    fn cell(&self, values: &[f64]) -> String {
        let (min, max) = min_max(values);
        let digits = if self.unit == "ms" { 1 } else { 0 };
        format!(
            "{:.digits$} ({min:.digits$}–{max:.digits$}) {}",
            median(values),
            self.unit
        )
    }

    /// The median of the rounds' ratios.
    fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.go.iter().zip(&self.ours).map(|(go, ours)| go / ours).collect();
        median(&ratios)
    }

    fn times(&self) -> String {
        format!("{:.1}", self.ratio())
    }
}

fn number(value: &Value, name: &str) -> Result<f64> {
    value[name].as_f64().with_context(|| format!("no {name} in {value}"))
}

fn nanos_per_op(value: &Value) -> Result<f64> {
    Ok(number(value, "nanos")? / number(value, "ops")?)
}

fn millis(value: &Value) -> Result<f64> {
    Ok(number(value, "nanos")? / 1e6)
}

fn read_millis(value: &Value) -> Result<f64> {
    Ok(number(value, "read_nanos")? / 1e6)
}

/// What go has on its heap, garbage excluded, against what we have resident: the comparison that is worst for us.
fn bytes(value: &Value, what: &str) -> Result<f64> {
    number(value, &format!("heap_{what}")).or_else(|_| number(value, &format!("resident_{what}")))
}

fn closed(rounds: &[Value]) -> f64 {
    rounds.iter().filter_map(|value| value["closed"].as_f64()).sum()
}

async fn go_once(program: &Path, case: Case, length: Duration) -> Result<Value> {
    let Case {
        load, peers, threads, ..
    } = case;
    let mut command = Command::new(program);
    command.arg(load.label());
    command.args(["-peers", &peers.to_string(), "-threads", &threads.to_string()]);
    command.args(["-length", &format!("{}ms", length.as_millis())]);
    output(&mut command).await
}

async fn ours_once(case: Case, length: Duration) -> Result<Value> {
    let Case {
        load, peers, threads, ..
    } = case;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["connmgr-child", load.label()]);
    command.args(["--peers", &peers.to_string(), "--threads", &threads.to_string()]);
    command.args(["--millis", &length.as_millis().to_string()]);
    output(&mut command).await
}

/// The JSON that a program writes before it ends.
async fn output(command: &mut Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?}"))
}

async fn million(report: &mut Report, options: &Options) -> Result<()> {
    let peers = if options.smoke { 10_000 } else { 1_000_000 };
    let case = Case {
        about: "",
        load: Load::Million,
        peers,
        threads: 0,
    };
    let rounds = options.rounds(3, 1);
    let mut all = Vec::new();
    for _ in 0..rounds {
        all.push(ours_once(case, Duration::ZERO).await?);
    }
    let of = |name: &str| -> Result<f64> {
        let values: Vec<f64> = all.iter().map(|value| number(value, name)).collect::<Result<_>>()?;
        Ok(median(&values))
    };
    let mut rows = vec![["", "median"].map(str::to_owned).to_vec()];
    for (about, name, digits) in million::ROWS {
        rows.push(vec![(*about).to_owned(), format!("{:.*}", *digits, of(name)?)]);
    }
    println!(
        "\n{peers} peers with one connection, one tag and an address each, the behaviour alone; {rounds} rounds\n\n{}",
        markdown(&rows)
    );
    report.result("connmgr_1m_mib", Some(of("mib")?));
    report.result("connmgr_trim_1m_ms", Some(of("work_ms")?));
    report.result("connmgr_longest_poll_ms", Some(of("longest_poll_cpu_ms")?));
    report.attach("million", Value::Array(all));
    Ok(())
}
