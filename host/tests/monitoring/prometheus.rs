//! A real Prometheus with the rules as they are, and hosts in this process, each with a fault of its own or none.

use crate::common::{monitoring, there_is};
use knock_host::discovery::StaticList;
use knock_host::{Host, HostConfig, Limits, Stream};
use libp2p_identity::{Keypair, PeerId};
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(90);
const TICK: Duration = Duration::from_millis(100);
const NAME: &str = "x";

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

async fn start(seed: u8, list: StaticList) -> Host {
    let config = HostConfig::new(libp2p_knock::Config::new(&keypair(seed)).unwrap())
        .with_listen_address("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
        .with_dial_interval(TICK);
    Host::start(config, list).await.unwrap()
}

/// A host of the seed, and one of the seed plus 100 that dials it.
async fn pair(seed: u8, limits: Limits) -> [(Arc<Host>, Arc<Stream>); 2] {
    let called = Arc::new(start(seed, StaticList::new()).await);
    let list = StaticList::from_iter([(peer(seed), called.listen_addresses()[0].clone())]);
    let caller = Arc::new(start(seed + 100, list).await);
    let there = Arc::new(called.open_stream(peer(seed + 100), NAME, limits).unwrap());
    let here = Arc::new(caller.open_stream(peer(seed), NAME, Limits::default()).unwrap());
    [(called, there), (caller, here)]
}

/// Serves what `host` counts, as a program would, and returns where.
async fn serve(host: &Host) -> SocketAddr {
    let mut registry = Registry::default();
    knock_host::metrics::register(&mut registry, host).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    address
}

/// A running Prometheus. Dropping it kills it.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(targets: &[(&str, SocketAddr)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = format!(
            "global: {{scrape_interval: 250ms, evaluation_interval: 250ms}}\nrule_files: [{:?}]\nscrape_configs:\n  \
             - job_name: hosts\n    static_configs:\n",
            monitoring("rules.yml")
        );
        for (case, target) in targets {
            config += &format!("      - {{targets: [\"{target}\"], labels: {{case: {case}}}}}\n");
        }
        let path = directory.path().join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        // It cannot tell which port the system chose. Somebody else may take ours before it does; then it ends, and the first
        // question fails.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            _directory: directory,
        }
    }

    /// What a query answers now, as (case, value); nothing while it does not answer.
    async fn query(&self, query: &str) -> Vec<(String, String)> {
        let asked = async {
            let mut socket = TcpStream::connect(self.address).await?;
            let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\nHost: localhost\r\n\r\n");
            socket.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let Ok(answer) = asked.await else { return Vec::new() };
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let Ok(body) = serde_json::from_str::<Value>(body) else {
            return Vec::new();
        };
        let samples = body["data"]["result"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        samples
            .iter()
            .map(|sample| (text(&sample["metric"]["case"]), text(&sample["value"][1])))
            .collect()
    }
}

const CHECKS: [&str; 5] = [
    "ragep2p:receiving",
    "ragep2p:sending",
    "ragep2p:connection_churn_reasonable",
    "ragep2p:skipping_nothing",
    "ragep2p:dialled",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_health_check_is_true_on_a_healthy_pair_and_false_on_the_fault_it_is_for() {
    if !there_is("prometheus") {
        return;
    }
    let mut sending = Vec::new();
    let mut send = |stream: &Arc<Stream>| {
        let stream = stream.clone();
        sending.push(tokio::spawn(async move {
            loop {
                stream.send("all is well");
                tokio::time::sleep(TICK).await;
            }
        }));
    };
    // Both send, and somebody knocks at the door now and then.
    let healthy = pair(1, Limits::default()).await;
    healthy.iter().for_each(|(_, stream)| send(stream));
    let port = healthy[0].0.listen_addresses()[0].to_string();
    let port: u16 = port.split('/').nth(4).unwrap().parse().unwrap();
    let visitor = tokio::spawn(async move {
        loop {
            drop(TcpStream::connect(("127.0.0.1", port)).await);
            tokio::time::sleep(TICK).await;
        }
    });
    // One of two says nothing: the other receives nothing. It is the one that dials, and that nobody dials.
    let quiet = pair(2, Limits::default()).await;
    send(&quiet[0].1);
    // More than the limits of the receiver allow.
    let flooded = pair(3, Limits::default().with_messages(1.0, 1)).await;
    send(&flooded[1].1);
    // A peer that comes and goes.
    let churning = start(4, StaticList::new()).await;
    let _stream = churning.open_stream(peer(104), NAME, Limits::default()).unwrap();
    let address = churning.listen_addresses()[0].clone();
    let churn = tokio::spawn(async move {
        loop {
            let host = start(104, StaticList::from_iter([(peer(4), address.clone())])).await;
            let stream = host.open_stream(peer(4), NAME, Limits::default()).unwrap();
            for _ in 0..50 {
                if host.is_connected(&peer(4)) {
                    break;
                }
                tokio::time::sleep(TICK).await;
            }
            drop(stream);
            host.close().await;
        }
    });
    // What is said once at the beginning of a connection must not be taken for what is said now: a rate is one of all that the
    // first scrape has not seen.
    let connected = async {
        for (host, stream) in [&healthy, &quiet, &flooded].into_iter().flatten() {
            let counters = host.counters().peer(&stream.peer()).unwrap();
            while counters.conn_read_processed_bytes.get() == 0 || counters.conn_written_bytes.get() == 0 {
                tokio::time::sleep(TICK).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, connected)
        .await
        .expect("every pair is connected");
    let prometheus = Prometheus::start(&[
        ("healthy", serve(&healthy[0].0).await),
        ("not_receiving", serve(&quiet[0].0).await),
        ("not_sending", serve(&quiet[1].0).await),
        ("skipping", serve(&flooded[0].0).await),
        ("churning", serve(&churning).await),
    ]);
    let expected = [
        ("healthy", [Some(true); 5]),
        ("not_receiving", [Some(false), Some(true), Some(true), Some(true), None]),
        (
            "not_sending",
            [Some(true), Some(false), Some(true), Some(true), Some(false)],
        ),
        ("skipping", [None, None, Some(true), Some(false), None]),
        ("churning", [None, None, Some(false), None, None]),
    ];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut wrong = Vec::new();
        for (at, check) in CHECKS.iter().enumerate() {
            let answers = prometheus.query(check).await;
            for (case, verdicts) in &expected {
                let Some(verdict) = verdicts[at] else { continue };
                let wanted = if verdict { "1" } else { "0" };
                let found: Vec<&str> = answers
                    .iter()
                    .filter(|(answered, _)| answered == case)
                    .map(|(_, value)| value.as_str())
                    .collect();
                if found != [wanted] {
                    wrong.push(format!("{check} of {case}: {found:?}, not {wanted}"));
                }
            }
        }
        if wrong.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{wrong:#?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    churn.abort();
    visitor.abort();
    sending.iter().for_each(tokio::task::JoinHandle::abort);
}
