//! Round trips between two hosts.

use knock_host::discovery::StaticList;
use knock_host::metrics::rageping::{Config, Rageping};
use knock_host::{Behaviour, BehaviourConfig, Host, HostConfig};
use libp2p_identity::{Keypair, PeerId};
use prometheus_client::registry::Registry;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

async fn start(seed: u8, list: StaticList) -> Host {
    let config = HostConfig::new(libp2p_knock::Config::new(&keypair(seed)).unwrap())
        .with_listen_address("/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
        .with_dial_interval(Duration::from_millis(100));
    Host::start(config, list).await.unwrap()
}

/// Often, for a test.
fn configs() -> [Config; 2] {
    [20, 5000].map(|size| {
        Config::new(
            size,
            Duration::from_millis(20),
            Duration::from_millis(40),
            Duration::from_secs(10),
        )
        .unwrap()
        .with_startup_delay(Duration::ZERO)
    })
}

fn render(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

fn samples(registry: &Registry) -> String {
    let text = render(registry);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.collect()
}

/// What the host of the seed shows while it measures nothing.
fn nothing(seed: u8) -> String {
    format!("knock_host_rageping_streams{{peer_id=\"{}\"}} 0", peer(seed))
}

/// The value of the sample `name` for pings of `size` bytes.
fn value(text: &str, name: &str, size: usize) -> Option<f64> {
    let size = format!("ping_size=\"{size}\"");
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&size))?;
    line.rsplit(' ').next().unwrap().parse().ok()
}

#[tokio::test]
async fn round_trips_are_measured_in_both_directions_until_the_peer_is_removed_as_often_as_it_was_added() {
    let called = start(1, StaticList::new()).await;
    let list = StaticList::from_iter([(peer(1), called.listen_addresses()[0].clone())]);
    let caller = start(2, list).await;
    let there = Rageping::new(&called, configs());
    there.add_peers([peer(2)]);
    let here = Rageping::new(&caller, configs().into_iter().chain(configs()));
    let mut registry = Registry::default();
    here.register(&mut registry).unwrap();
    assert_eq!(samples(&registry), nothing(2), "nobody yet");
    here.add_peers([peer(1), peer(2)]);
    here.add_peers([peer(1)]);

    let measured = async {
        loop {
            let text = render(&registry);
            let enough = [20, 5000].into_iter().all(|size| {
                value(&text, "rageping_round_trip_latency_seconds_count", size) >= Some(3.0)
                    && value(&text, "rageping_received_requests_total", size) >= Some(3.0)
            });
            if enough {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let text = tokio::time::timeout(PATIENCE, measured)
        .await
        .expect("three round trips of each size");
    let labels = format!(
        "{{peer_id=\"{}\",remote_peer_id=\"{}\",ping_size=\"20\",min_period=\"20ms\",max_period=\"40ms\",timeout=\"10s\"}}",
        peer(2),
        peer(1)
    );
    for name in ["rageping_sent_requests_total", "rageping_timed_out_requests_total"] {
        assert!(text.contains(&format!("{name}{labels} ")), "{text}");
    }
    assert!(text.contains("rageping_invalid_messages_received_total{"));
    let bounds: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.starts_with("rageping_round_trip_latency_seconds_bucket{") && line.contains("ping_size=\"20\"")
        })
        .filter_map(|line| line.split("le=\"").nth(1)?.split('"').next())
        .collect();
    let original = [
        "0.025", "0.05", "0.075", "0.1", "0.15", "0.2", "0.25", "0.3", "0.4", "0.5", "0.75", "1.0", "2.5", "5.0",
        "10.0", "+Inf",
    ];
    assert_eq!(bounds, original);
    let descriptions = text
        .matches("# TYPE rageping_round_trip_latency_seconds histogram")
        .count();
    assert_eq!(descriptions, 1, "two configurations, one description");

    here.remove_peers([peer(1), peer(2)]);
    assert!(
        value(&render(&registry), "rageping_sent_requests_total", 20).is_some(),
        "added twice"
    );
    here.remove_peers([peer(1)]);
    assert_eq!(samples(&registry), nothing(2));
    caller.close().await;
    called.close().await;
}

/// Runs `work` on a thread of its own, inside a runtime. A thread that waits for a lock for ever is
/// told by the time.
fn comes_back(work: impl FnOnce() + Send + 'static) {
    let (done, waiting) = std::sync::mpsc::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        let _inside = runtime.enter();
        work();
        done.send(())
    });
    let result = waiting.recv_timeout(Duration::from_secs(20));
    result.expect("it returns, and waits for no lock that it holds");
}

/// Takes what is rendered, and calls what renders it.
struct Calling(Rageping, usize);

impl std::fmt::Write for Calling {
    fn write_str(&mut self, _: &str) -> std::fmt::Result {
        self.1 += 1;
        self.0.add_peers([peer(2)]);
        self.0.remove_peers([peer(2)]);
        Ok(())
    }
}

#[tokio::test]
async fn what_lists_peers_and_what_takes_the_metrics_may_call_the_measuring_and_may_panic() {
    let host = start(1, StaticList::new()).await;
    let pings = Rageping::new(&host, configs());
    let calling = pings.clone();
    comes_back(move || {
        let peers = |from: u8| {
            let calling = calling.clone();
            (from..5).map(move |seed| {
                calling.add_peers([peer(seed)]);
                peer(seed)
            })
        };
        calling.add_peers(peers(3));
        // Each was added twice before, and is taken back three times while it is added once more.
        let removing = calling.clone();
        calling.remove_peers(peers(3).inspect(|peer| removing.remove_peers([*peer, *peer])));
    });
    let text = {
        let mut registry = Registry::default();
        pings.register(&mut registry).unwrap();
        samples(&registry)
    };
    assert_eq!(text, nothing(1), "added three times, removed three times");

    pings.add_peers([peer(2)]);
    let wild = [7, 8].into_iter().map(|seed| {
        assert_eq!(seed, 7, "the second");
        peer(seed)
    });
    let added = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pings.add_peers(wild)));
    assert!(added.is_err(), "the caller sees the panic");
    assert!(host.counters().peer(&peer(7)).is_none(), "and nothing has changed");
    let calling = pings.clone();
    comes_back(move || {
        let mut registry = Registry::default();
        calling.register(&mut registry).unwrap();
        let mut writer = Calling(calling, 0);
        prometheus_client::encoding::text::encode(&mut writer, &registry).unwrap();
        assert!(writer.1 > 10);
    });
    host.close().await;
}

/// Asks the measuring when it is woken, as an executor may that logs what it runs.
struct Asking(Rageping);

impl std::task::Wake for Asking {
    fn wake(self: std::sync::Arc<Self>) {
        assert!(!format!("{:?}", self.0).is_empty());
        self.0.remove_peers([peer(9)]);
    }
}

#[tokio::test]
async fn the_task_of_a_swarm_that_is_woken_for_a_new_peer_may_call_the_measuring() {
    use libp2p_swarm::NetworkBehaviour as _;
    use std::task::{Context, Waker};
    let mut behaviour = Behaviour::new(peer(1), BehaviourConfig::default());
    let pings = Rageping::new(&behaviour.handle(), configs());
    let waker = Waker::from(std::sync::Arc::new(Asking(pings.clone())));
    assert!(behaviour.poll(&mut Context::from_waker(&waker)).is_pending());
    let adding = pings.clone();
    comes_back(move || adding.add_peers([peer(2), peer(3)]));
    let mut dials = 0;
    while behaviour.poll(&mut Context::from_waker(Waker::noop())).is_ready() {
        dials += 1;
    }
    assert_eq!(dials, 2, "the Swarm sees to both");
    let outside = pings.clone();
    let added = std::thread::spawn(move || outside.add_peers([peer(4)])).join();
    assert!(added.is_err(), "there is no runtime");
    assert!(
        behaviour.handle().counters().peer(&peer(4)).is_none(),
        "and nothing has changed"
    );
}
