//! How many descriptors a listener holds, whatever is done to it. A binary of its own, whose tests run one after the
//! other: descriptors are counted for the whole process.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#![cfg(all(target_os = "linux", feature = "internals", feature = "metrics"))]

#[cfg(test)]
#[allow(dead_code, reason = "what the other binary needs as well")]
#[path = "it/common.rs"]
mod common;

#[cfg(test)]
mod held {
    use crate::common::*;
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use libp2p_core::Transport as _;
    use libp2p_core::transport::{ListenerId, TransportEvent};
    use libp2p_knock::Config;
    use libp2p_knock::internals::{Callee, Hedged, Network, StaticKey, local, seal};
    use prometheus_client::registry::Registry;
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpStream;

    /// Runs one test at a time, its runtime included, which has descriptors of its own.
    fn alone(test: impl Future<Output = ()>) {
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(test);
    }

    fn descriptors() -> usize {
        // The directory itself is one while it is read, each time.
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    /// Waits until `done`, at most so long.
    async fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A listener of seed 2 for which nothing is ever too late or too much.
    async fn patient(config: Config) -> (Victim, Registry) {
        let mut registry = Registry::default();
        let config = config
            .with_max_openings(100_000.try_into().unwrap())
            .unwrap()
            .with_max_waiting(4096.try_into().unwrap())
            .dangerous()
            .with_close_time(Duration::from_secs(300))
            .with_metrics(&mut registry)
            .unwrap();
        (victim(config).await, registry)
    }

    fn value(registry: &Registry, name: &str) -> usize {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        let name = format!("libp2p_knock_{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// A knock of seed 1 at seed 2 that would be answered, with its ClientHello.
    fn flight() -> Vec<u8> {
        // It has to be younger than the process that it is for, by a millisecond or two.
        let _ = config(2);
        std::thread::sleep(Duration::from_millis(5));
        sealed()
    }

    /// One more, in a process that is old enough.
    fn sealed() -> Vec<u8> {
        let mut hello = Vec::new();
        let mut client = gullible_client(&rustls::version::TLS13, Some((1, 1)));
        client.write_tls(&mut hello).unwrap();
        let identity = local(&keypair(1)).unwrap();
        let fresh = Hedged::new(&*identity).unwrap().fresh().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let (own, to) = (StaticKey::new(identity).unwrap(), Callee::of_peer(&peer(2)).unwrap());
        let mode = libp2p_knock::Mode::Yamux;
        seal(&own, &to, &Network::open(), mode, now as u64, fresh, &hello).unwrap()
    }

    /// A stream of an honest peer, and both its ends.
    struct Established {
        ours: Stream,
        theirs: Stream,
    }

    impl Established {
        async fn with(listener: &mut Victim) -> Self {
            let dial = authenticated(config(3))
                .dial(listener.address.clone(), dialer())
                .unwrap();
            let (_, ours) = soon("the dial", dial).await.unwrap();
            let (caller, theirs) = listener.upgraded().await.unwrap();
            assert_eq!(caller, peer(3));
            Self { ours, theirs }
        }

        async fn flows(&mut self) {
            let mut room = [0; 5];
            self.ours.write_all(b"still").await.unwrap();
            self.ours.flush().await.unwrap();
            soon("what was sent", self.theirs.read_exact(&mut room)).await.unwrap();
            self.theirs.write_all(b"there").await.unwrap();
            self.theirs.flush().await.unwrap();
            soon("what came back", self.ours.read_exact(&mut room)).await.unwrap();
            assert_eq!(&room, b"there");
        }
    }

    #[test]
    fn a_flight_that_ends_at_whichever_byte_leaves_nothing_behind() {
        alone(async {
            let (mut listener, registry) = patient(config(2)).await;
            let mut friend = Established::with(&mut listener).await;
            within(PATIENCE, "the friend", || value(&registry, "sockets_waiting") == 0).await;
            let (flight, before) = (flight(), descriptors());
            for cut in 0..flight.len() {
                let mut socket = listener.connect().await;
                socket.write_all(&flight[..cut]).await.unwrap();
                drop(socket);
                if cut % 100 == 0 {
                    friend.flows().await;
                }
            }
            within(PATIENCE, "all of them", || {
                value(&registry, "knocks_total{outcome=\"incomplete\"}") == flight.len()
            })
            .await;
            assert_eq!(value(&registry, "sockets_waiting"), 0);
            within(PATIENCE, "their descriptors", || descriptors() <= before).await;
            // Had it come whole, it would have been answered.
            let mut socket = listener.connect().await;
            socket.write_all(&flight).await.unwrap();
            soon("an answer", tokio::io::AsyncReadExt::read_u8(&mut socket))
                .await
                .unwrap();
        });
    }

    #[test]
    fn resets_halves_and_slow_senders_leave_nothing_behind_and_hold_nobody_up() {
        alone(async {
            const RESETS: usize = 1000;
            let (mut listener, registry) = patient(config(2)).await;
            let mut friend = Established::with(&mut listener).await;
            within(PATIENCE, "the friend", || value(&registry, "sockets_waiting") == 0).await;
            let (flight, before) = (flight(), descriptors());
            // Some that say little, and some that have said that they will say no more, which is their end.
            let mut slow = Vec::new();
            for _ in 0..50 {
                slow.push(listener.connect().await);
                let mut half = listener.connect().await;
                half.shutdown().await.unwrap();
                slow.push(half);
            }
            for n in 0..RESETS {
                let mut socket = listener.connect().await;
                socket.write_all(&flight[..n % flight.len()]).await.unwrap();
                // Dropped, it is reset.
                socket.set_zero_linger().unwrap();
                drop(socket);
                if n % 50 == 0 {
                    for socket in slow.iter_mut().step_by(2) {
                        socket.write_all(b"\x01").await.unwrap();
                    }
                    friend.flows().await;
                }
            }
            within(PATIENCE, "all but the slow ones", || {
                value(&registry, "sockets_waiting") == 50
            })
            .await;
            drop(slow);
            within(PATIENCE, "the slow ones", || value(&registry, "sockets_waiting") == 0).await;
            within(PATIENCE, "their descriptors", || descriptors() <= before).await;
            friend.flows().await;
        });
    }

    /// A socket that has to go is closed then, and not when its listener finds the time: also when all come at once, which
    /// they do here, as nothing else runs while they connect. A machine that does something else for a second is no
    /// reason to fail, so one of a few attempts has to be in time; and none may hold more than it has places.
    #[test]
    fn a_full_pool_holds_no_more_descriptors_than_it_has_places() {
        let flight = flight();
        for said in [b"".as_slice(), b"\x01", &[7; 300], &flight[..204], &flight[..300]] {
            let mut took = Vec::new();
            while took.last().is_none_or(|last| *last > Duration::from_secs(1)) {
                assert!(took.len() < 4, "late each time: {took:?}");
                alone(async { took.push(evictions(said).await) });
            }
        }
    }

    /// How long a full pool takes to let everybody go whom it has no place for, once all have come and said this.
    async fn evictions(said: &[u8]) -> Duration {
        const PLACES: usize = 200;
        let config = config(2)
            .with_max_openings(100_000.try_into().unwrap())
            .unwrap()
            .with_max_waiting(PLACES.try_into().unwrap());
        let listener = victim(config).await;
        let (to, before) = (listener.socket.unwrap(), descriptors());
        let connect = || {
            let mut socket = std::net::TcpStream::connect(to).unwrap();
            std::io::Write::write_all(&mut socket, said).unwrap();
            socket.set_nonblocking(true).unwrap();
            // No port is to be held for a minute by what was only a test.
            let linger = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            linger.map(|()| socket).unwrap()
        };
        let sockets: Vec<_> = (0..4 * PLACES).map(|_| connect()).collect();
        let started = Instant::now();
        // Their ends are counted too: who takes no descriptor may be one whom nobody has accepted.
        let ended = || {
            sockets
                .iter()
                .filter(|socket| match socket.peek(&mut [0]) {
                    Ok(0) => true,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
                    // A reset, which would tell that bytes lay unread; it is seen once.
                    other => panic!("{other:?} after {said:?}"),
                })
                .count()
        };
        within(PATIENCE, "the evicted", || ended() >= 3 * PLACES).await;
        let held = descriptors() - before - sockets.len();
        assert!(held <= PLACES, "{held} descriptors for {PLACES} places");
        started.elapsed()
    }

    /// Valid knocks that stall in their handshake, one after the other, at a listener with eight
    /// places. `taken` says whether its Swarm takes callers, and hears of those that had to go.
    async fn stalled(taken: bool) {
        const PLACES: usize = 8;
        const FLIGHTS: usize = 300;
        let mut registry = Registry::default();
        let config = config(2)
            .with_max_openings(100_000.try_into().unwrap())
            .unwrap()
            .with_max_waiting(PLACES.try_into().unwrap())
            .with_handshake_timeout(Duration::from_secs(300))
            .with_metrics(&mut registry)
            .unwrap()
            .dangerous()
            .with_close_time(Duration::from_secs(300));
        let mut transport = authenticated(config).with_executor(|task| drop(tokio::spawn(task)));
        let to = listening(&mut transport).await;
        let knocks = |outcome: &str| value(&registry, &format!("knocks_total{{outcome=\"{outcome}\"}}"));
        let flights: Vec<_> = std::iter::once(flight())
            .chain((1..FLIGHTS).map(|_| sealed()))
            .collect();
        let before = descriptors();
        let (failures, mut held) = (Arc::<AtomicUsize>::default(), None);
        if taken {
            let failed = failures.clone();
            held = Some(tokio::spawn(async move {
                loop {
                    let event = futures::future::poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await;
                    if let TransportEvent::Incoming { upgrade, .. } = event {
                        let failed = failed.clone();
                        tokio::spawn(async move {
                            let error = upgrade.await.expect_err("it stalls").into_error();
                            assert!(matches!(error, libp2p_knock::Error::Knock(_)), "{error:?}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                }
            }));
        }
        let mut sockets = Vec::new();
        for (n, flight) in flights.iter().enumerate() {
            let mut socket = TcpStream::connect(to).await.unwrap();
            socket.write_all(flight).await.unwrap();
            sockets.push(socket);
            within(PATIENCE, "an answer", || {
                knocks("accepted") + knocks("evicted") == n + 1
            })
            .await;
            let held = || descriptors() - before - sockets.len();
            within(PATIENCE, "the places", || held() <= PLACES).await;
        }
        assert!(knocks("accepted") > FLIGHTS / 2, "stalled before they were answered");
        let waiting = value(&registry, "sockets_waiting");
        assert!(waiting <= PLACES && waiting > 0, "{waiting}");
        // Those that had to go see an ordinary end and no reset, behind the server's flight if
        // there was one.
        let mut ended = 0;
        for socket in sockets {
            let socket = socket.into_std().unwrap();
            socket.set_nonblocking(true).unwrap();
            loop {
                match std::io::Read::read(&mut &socket, &mut [0; 4096]) {
                    Ok(0) => ended += 1,
                    Ok(_) => continue,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => panic!("{error:?}"),
                }
                break;
            }
        }
        assert_eq!(ended, FLIGHTS - waiting);
        if let Some(task) = held {
            let gone = knocks("accepted") - waiting;
            within(PATIENCE, "to be told", || failures.load(Ordering::Relaxed) >= gone).await;
            task.abort();
        }
    }

    #[test]
    fn callers_that_stall_in_their_handshake_hold_no_more_descriptors_than_there_are_places() {
        alone(stalled(true));
    }

    #[test]
    fn callers_that_their_swarm_does_not_take_hold_no_more_descriptors_than_there_are_places() {
        alone(stalled(false));
    }

    /// A caller that the Swarm does not even begin to answer sees what a stranger sees: the end, at
    /// its time.
    #[test]
    fn callers_that_their_swarm_does_not_take_are_closed_when_their_time_is_over() {
        alone(async {
            let mut registry = Registry::default();
            let config = config(2)
                .with_metrics(&mut registry)
                .unwrap()
                .dangerous()
                .with_close_time(Duration::from_millis(300));
            let mut transport = authenticated(config).with_executor(|task| drop(tokio::spawn(task)));
            let to = listening(&mut transport).await;
            let (flight, before) = (flight(), descriptors());
            let mut socket = TcpStream::connect(to).await.unwrap();
            socket.write_all(&flight).await.unwrap();
            let mut answer = Vec::new();
            let ended = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer);
            soon("the end", ended).await.expect("no reset");
            assert!(answer.is_empty());
            assert_eq!(value(&registry, "knocks_total{outcome=\"accepted\"}"), 1);
            drop(socket);
            within(PATIENCE, "its descriptor", || descriptors() == before).await;
        });
    }

    /// Valid knocks that stall in their handshake, four at a time, at a listener with eight places.
    /// Then their time is over, or their listener is `removed` and there is another.
    async fn stalled_for_good(removed: bool) {
        const PLACES: usize = 8;
        const FLIGHTS: usize = 24;
        let mut registry = Registry::default();
        let config = config(2)
            .with_max_openings(100_000.try_into().unwrap())
            .unwrap()
            .with_max_waiting(PLACES.try_into().unwrap())
            .with_handshake_timeout(Duration::from_secs(300))
            .with_metrics(&mut registry)
            .unwrap()
            .dangerous()
            .with_close_time(Duration::from_millis(if removed { 300_000 } else { 500 }));
        let mut transport = authenticated(config).with_executor(|task| drop(tokio::spawn(task)));
        let (ask, mut asked) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<SocketAddr>>(1);
        let task = tokio::spawn(async move {
            let (mut listener, mut asks) = (None, None);
            loop {
                tokio::select! {
                    Some(asking) = asked.recv() => {
                        if let Some(id) = listener.replace(ListenerId::next()) {
                            assert!(transport.remove_listener(id));
                        }
                        asks = Some(asking);
                        let address = "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap();
                        transport.listen_on(listener.unwrap(), address).unwrap();
                    }
                    event = futures::future::poll_fn(|cx| Pin::new(&mut transport).poll(cx)) => match event {
                        TransportEvent::NewAddress { listen_addr, .. } => {
                            asks.take().unwrap().send(socket_of(&listen_addr).unwrap()).unwrap();
                        }
                        TransportEvent::Incoming { upgrade, .. } => drop(tokio::spawn(upgrade)),
                        _ => {}
                    },
                }
            }
        });
        let listen = async || {
            let (asking, address) = tokio::sync::oneshot::channel();
            ask.send(asking).await.unwrap();
            soon("an address", address).await.unwrap()
        };
        let knocks = |outcome: &str| value(&registry, &format!("knocks_total{{outcome=\"{outcome}\"}}"));
        let flights: Vec<_> = std::iter::once(flight())
            .chain((1..FLIGHTS).map(|_| sealed()))
            .collect();
        let mut to = listen().await;
        let before = descriptors();
        let (mut sockets, mut silent) = (Vec::new(), 0);
        for flights in flights.chunks(4) {
            for flight in flights {
                let mut socket = TcpStream::connect(to).await.unwrap();
                socket.write_all(flight).await.unwrap();
                sockets.push(socket);
                within(PATIENCE, "an answer", || {
                    let decided = knocks("accepted") + knocks("evicted") + knocks("timeout");
                    decided == sockets.len() + silent
                })
                .await;
            }
            if removed {
                to = listen().await;
            } else {
                // The last to come is the last to go.
                let mut last = TcpStream::connect(to).await.unwrap();
                let mut nothing = Vec::new();
                let ended = tokio::io::AsyncReadExt::read_to_end(&mut last, &mut nothing);
                assert_eq!(soon("the end of their time", ended).await.unwrap(), 0);
                silent += 1;
            }
            let held = || descriptors() - before - sockets.len();
            within(PATIENCE, "the places", || held() <= PLACES).await;
        }
        assert!(knocks("accepted") > FLIGHTS / 2, "stalled before they were answered");
        let waiting = value(&registry, "sockets_waiting");
        assert!(waiting > 0, "those that stall have places");
        task.abort();
    }

    /// A caller that knocks at the end of its time, and then stalls, does not give up its place and
    /// keep its socket.
    #[test]
    fn callers_that_stall_when_their_time_is_over_hold_no_more_descriptors_than_there_are_places() {
        alone(stalled_for_good(false));
    }

    #[test]
    fn callers_that_stall_when_their_listener_is_removed_hold_no_more_descriptors_than_there_are_places() {
        alone(stalled_for_good(true));
    }

    async fn listening(transport: &mut libp2p_knock::Authenticated<libp2p::tcp::tokio::Transport>) -> SocketAddr {
        transport
            .listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
            .unwrap();
        let event = futures::future::poll_fn(|cx| Pin::new(&mut *transport).poll(cx)).await;
        socket_of(&event.into_new_address().expect("an address")).unwrap()
    }

    /// Descriptors that relief frees are there for the next caller, also if all sockets in the pool
    /// are being answered.
    #[test]
    fn without_descriptors_callers_that_stall_in_their_handshake_go_and_what_they_held_is_free() {
        alone(async {
            const STALLED: usize = 40;
            let mut registry = Registry::default();
            let config = config(2)
                .with_max_openings(100_000.try_into().unwrap())
                .unwrap()
                .with_max_waiting(4096.try_into().unwrap())
                .with_handshake_timeout(Duration::from_secs(300))
                .with_metrics(&mut registry)
                .unwrap()
                .dangerous()
                .with_close_time(Duration::from_secs(300));
            let mut transport = authenticated(config).with_executor(|task| drop(tokio::spawn(task)));
            let to = listening(&mut transport).await;
            let knocks = |outcome: &str| value(&registry, &format!("knocks_total{{outcome=\"{outcome}\"}}"));
            let flights: Vec<_> = std::iter::once(flight())
                .chain((1..STALLED).map(|_| sealed()))
                .collect();
            // The Swarm takes none of them: what they hold is the listener's.
            let mut sockets = Vec::new();
            for flight in &flights {
                let mut socket = TcpStream::connect(to).await.unwrap();
                socket.write_all(flight).await.unwrap();
                sockets.push(socket);
            }
            within(PATIENCE, "answers", || knocks("accepted") == STALLED).await;
            let later = tokio::net::TcpSocket::new_v4().unwrap();
            let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
            rlimit::Resource::NOFILE.set(soft.min(1024), hard).unwrap();
            let all = exhaust();
            let before = value(&registry, "accepts_total");
            let _one = later.connect(to).await.unwrap();
            // 64 may go at once, which are all.
            within(PATIENCE, "relief", || value(&registry, "accepts_total") == before + 1).await;
            within(PATIENCE, "what they held", || exhaust().len() == STALLED - 1).await;
            drop(all);
            rlimit::Resource::NOFILE.set(soft, hard).unwrap();
        });
    }

    /// The pause that libp2p-tcp takes after an error does not keep an address from being free.
    #[test]
    fn an_address_is_free_as_soon_as_its_listener_is_removed_also_right_after_an_error() {
        alone(async {
            let mut transport = tcp(2);
            let id = ListenerId::next();
            transport
                .listen_on(id, "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
                .unwrap();
            let event = futures::future::poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await;
            let address = event.into_new_address().expect("an address");
            let later = tokio::net::TcpSocket::new_v4().unwrap();
            let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
            rlimit::Resource::NOFILE.set(soft.min(1024), hard).unwrap();
            let all = exhaust();
            let _one = later.connect(socket_of(&address).unwrap()).await.unwrap();
            let failed = soon(
                "an error",
                futures::future::poll_fn(|cx| Pin::new(&mut transport).poll(cx)),
            )
            .await;
            assert!(matches!(failed, TransportEvent::ListenerError { .. }), "{failed:?}");
            drop(all);
            rlimit::Resource::NOFILE.set(soft, hard).unwrap();
            assert!(transport.remove_listener(id));
            transport.listen_on(ListenerId::next(), address).expect("free");
        });
    }

    /// Takes every descriptor that is left.
    fn exhaust() -> Vec<std::fs::File> {
        std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
    }

    /// Polls a listener, and counts what it says about descriptors that are not there.
    fn run(
        mut transport: libp2p_knock::Authenticated<libp2p::tcp::tokio::Transport>,
    ) -> (Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
        let errors = Arc::<AtomicUsize>::default();
        let counted = errors.clone();
        let task = tokio::spawn(async move {
            loop {
                match futures::future::poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await {
                    TransportEvent::Incoming { upgrade, .. } => drop(tokio::spawn(upgrade)),
                    TransportEvent::ListenerError { .. } => {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    TransportEvent::ListenerClosed { .. } => panic!("it gave up"),
                    _ => {}
                }
            }
        });
        (errors, task)
    }

    #[test]
    fn without_descriptors_strangers_go_and_with_them_back_it_accepts_within_a_second() {
        alone(async {
            let mut registry = Registry::default();
            let config_of_two = config(2).with_metrics(&mut registry).unwrap();
            let mut transport = authenticated(config_of_two);
            transport
                .listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap())
                .unwrap();
            let event = futures::future::poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await;
            let address = event.into_new_address().expect("an address");
            let to: SocketAddr = socket_of(&address).unwrap();
            let (errors, task) = run(transport);
            let failed = || errors.load(Ordering::Relaxed);
            let accepted = || value(&registry, "accepts_total");

            let mut strangers = Vec::new();
            for _ in 0..20 {
                strangers.push(TcpStream::connect(to).await.unwrap());
            }
            within(PATIENCE, "strangers", || accepted() == 20).await;

            // Sockets to come, made while there are descriptors for them.
            let mut later: Vec<_> = (0..30).map(|_| tokio::net::TcpSocket::new_v4().unwrap()).collect();
            let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
            rlimit::Resource::NOFILE.set(soft.min(1024), hard).unwrap();
            let all = exhaust();
            assert!(std::fs::File::open("/dev/null").is_err(), "none is left");

            // Who waits has to go, and then there is room again.
            let one = later.pop().unwrap().connect(to).await.unwrap();
            within(PATIENCE, "the first failure", || failed() > 0).await;
            within(PATIENCE, "its place", || accepted() == 21).await;
            assert_eq!(value(&registry, "knocks_total{outcome=\"evicted\"}"), 20);

            // Nobody else is left to go, and it does not give up.
            let again = exhaust();
            let mut waiting = Vec::new();
            for socket in later {
                waiting.push(socket.connect(to).await.unwrap());
            }
            let before = failed();
            within(PATIENCE, "more failures", || failed() > before + 3).await;
            drop((all, again));
            within(Duration::from_secs(1), "all who waited", || accepted() == 50).await;
            rlimit::Resource::NOFILE.set(soft, hard).unwrap();
            let dial = authenticated(config(1))
                .dial(address.with_p2p(peer(2)).unwrap(), dialer())
                .unwrap();
            soon("an honest dial", dial).await.unwrap();
            drop((one, waiting, strangers));
            task.abort();
        });
    }
}
