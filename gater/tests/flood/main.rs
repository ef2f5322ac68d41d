//! A flood from a blocked range: the swarm hears nothing of it, and goes on with its work.
//!
//! By default a slice: that nothing is starved, whatever the machine. With `FLOOD=50000` the campaign, which also compares
//! how long pings take with and without the flood; the flooder then runs on the second core, so give the test the first:
//!
//! ```text
//! FLOOD=50000 taskset -c 0 cargo test --release -p libp2p-gater --test flood -- --nocapture
//! ```

#[cfg(test)]
mod flood {
    use futures::StreamExt as _;
    use libp2p::core::upgrade::Version;
    use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
    use libp2p::{Multiaddr, Swarm, SwarmBuilder, Transport as _, noise, ping, tcp, yamux};
    use libp2p_gater::{Accept, Cidr, ConnectionGater, FirstWins, Gate, Rules, Verdict};
    use std::net::{Ipv4Addr, SocketAddr};
    use std::process::{Child, Command};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpSocket;

    const TARGET: &str = "GATER_TEST_FLOODS";
    const PATIENCE: Duration = Duration::from_secs(120);
    /// Of which nobody is let in.
    const BLOCKED: &str = "127.0.2.0/24";

    #[derive(NetworkBehaviour)]
    struct Behaviour {
        gate: libp2p_gater::Behaviour,
        ping: ping::Behaviour,
    }

    /// Counts what is accepted, before it is judged.
    struct Counting(Arc<AtomicU64>);

    impl ConnectionGater for Counting {
        fn intercept_accept(&self, _: &Accept<'_>) -> Verdict {
            self.0.fetch_add(1, Ordering::SeqCst);
            Verdict::Pass
        }
    }

    fn node(gate: &Gate) -> Swarm<Behaviour> {
        SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_other_transport(|key| {
                Ok(gate.transport(
                    tcp::tokio::Transport::new(tcp::Config::default())
                        .upgrade(Version::V1Lazy)
                        .authenticate(noise::Config::new(key)?)
                        .multiplex(yamux::Config::default()),
                ))
            })
            .unwrap()
            .with_behaviour(|_| Behaviour {
                gate: gate.behaviour(),
                ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(2))),
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build()
    }

    /// Connects from the blocked range, over and over, until it is killed.
    async fn flood(target: SocketAddr) {
        let one = |from: u8| async move {
            loop {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((Ipv4Addr::new(127, 0, 2, from), 0).into()).unwrap();
                let Ok(mut stream) = socket.connect(target).await else {
                    continue;
                };
                // It is closed by the other end. No port is to be kept for it afterwards.
                let _ = stream.read(&mut [0]).await;
                let _ = stream.set_zero_linger();
            }
        };
        futures::future::join_all((1..=64).map(one)).await;
    }

    struct Flooder(Child);

    impl Flooder {
        fn start(target: SocketAddr, pinned: bool) -> Self {
            let exe = std::env::current_exe().unwrap();
            let mut command = match pinned {
                true => {
                    let mut command = Command::new("taskset");
                    command.args(["-c", "1"]).arg(exe);
                    command
                }
                false => Command::new(exe),
            };
            command.args(["--exact", "flood::a_flood_from_a_blocked_range_starves_nobody"]);
            Self(command.env(TARGET, target.to_string()).spawn().unwrap())
        }
    }

    impl Drop for Flooder {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn percentile(times: &mut [Duration], of_hundred: usize) -> Duration {
        times.sort();
        times[(times.len() - 1) * of_hundred / 100]
    }

    /// Pings until `enough` says so.
    async fn pings(swarm: &mut Swarm<Behaviour>, enough: impl Fn(usize) -> bool) -> Vec<Duration> {
        let mut times = Vec::new();
        tokio::time::timeout(PATIENCE, async {
            while !enough(times.len()) {
                if let SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { result, .. })) =
                    swarm.select_next_some().await
                {
                    times.push(result.unwrap());
                }
            }
        })
        .await
        .expect("pings go through");
        times
    }

    fn socket(address: &Multiaddr) -> SocketAddr {
        let port = address.iter().find_map(|protocol| match protocol {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap()))
    }

    #[tokio::test]
    async fn a_flood_from_a_blocked_range_starves_nobody() {
        if let Ok(target) = std::env::var(TARGET) {
            return flood(target.parse().unwrap()).await;
        }
        let campaign: Option<u64> = std::env::var("FLOOD").ok().map(|count| count.parse().unwrap());
        let (connections, least) = (campaign.unwrap_or(2_000), 200);

        let (accepted, rules) = (Arc::new(AtomicU64::new(0)), Rules::new());
        rules
            .change(|change| change.block(BLOCKED.parse::<Cidr>().unwrap()))
            .unwrap();
        let gate = Gate::new(FirstWins::new().with(Counting(accepted.clone())).with(rules));
        let (mut listener, mut dialer) = (node(&gate), node(&Gate::new(Rules::new())));
        listener.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let at = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = listener.select_next_some().await {
                break address;
            }
        };
        dialer.dial(at.clone()).unwrap();
        // What the listening Swarm says of connections, whichever way.
        let incoming = Arc::new(AtomicU64::new(0));
        let seen = incoming.clone();
        tokio::spawn(async move {
            loop {
                if let SwarmEvent::IncomingConnection { .. } | SwarmEvent::IncomingConnectionError { .. } =
                    listener.select_next_some().await
                {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            }
        });

        let samples = if campaign.is_some() { 1_000 } else { least };
        let mut idle = pings(&mut dialer, |count| count >= samples).await;
        let before = accepted.load(Ordering::SeqCst);
        let flooder = Flooder::start(socket(&at), campaign.is_some());
        // From the first of them on.
        pings(&mut dialer, |_| accepted.load(Ordering::SeqCst) > before).await;
        let mut during = pings(&mut dialer, |count| {
            count >= least && accepted.load(Ordering::SeqCst) - before >= connections
        })
        .await;
        drop(flooder);

        assert_eq!(
            incoming.load(Ordering::SeqCst),
            1,
            "the Swarm hears of the one that is let in"
        );
        let (idle, flooded) = (percentile(&mut idle, 99), percentile(&mut during, 99));
        let refused = accepted.load(Ordering::SeqCst) - before;
        println!("{refused} refused, {} pings meanwhile", during.len());
        println!("ping, 99th percentile: {idle:?} idle, {flooded:?} in the flood");
        if campaign.is_some() {
            let ratio = flooded.as_secs_f64() / idle.as_secs_f64();
            println!("RESULT gater_flood_ping_p99_ratio {ratio:.2}");
            assert!(ratio <= 3.0, "{ratio:.2}");
        }
    }
}
