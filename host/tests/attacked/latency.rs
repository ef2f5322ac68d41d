//! How long an honest peer waits for its answers while another one attacks: quiet and attacked phases in turn, in one process.
//!
//! The victim has one thread, so that whatever keeps it from its work shows at once. Questions go out at fixed times, and an answer
//! is late by what has passed since its question was *due*: a stall counts against every question that falls into it.
//!
//! A machine with other work to do is late by itself now and then. So there are many rounds, each compared with the quiet phase
//! right before it, and only [`GOOD`] of them need to be within the bound: what an attack costs each time shows in all of them.

use crate::attacker::{HONEST, HOSTILE, VICTIM, dial, header, id, message, open, opens};
use crate::common::{PATIENCE, config, knock, peer, wide};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use knock_host::discovery::StaticList;
use knock_host::{Host, Limits, PeerCounters, Stream};
use libp2p_core::Multiaddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

/// Between two questions.
const PACE: Duration = Duration::from_millis(2);

/// Questions in a phase.
const QUESTIONS: u64 = 200;

/// How often an attack is tried.
const ROUNDS: usize = 12;

/// Rounds that have to be within the bound.
const GOOD: usize = 3;

/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// Takes next to nothing of what it is sent, of which there is much.
    Tarpit,
    /// Announces a message of 1 GiB, sends some of it, and comes back for more.
    Gigabyte,
    /// Opens more streams than there can be, is thrown out, and comes back.
    Opens,
    /// Sends as fast as it can until it is thrown out, and comes back.
    Flood,
    /// Sends small messages as fast as it can, all but a few of them over its rate and few enough bytes to stay.
    Messages,
}

impl Attack {
    fn limits(self) -> Limits {
        match self {
            Self::Tarpit => wide().with_outgoing_buffer(8),
            Self::Gigabyte => wide().with_max_message(1 << 30).with_bytes(4e9, u32::MAX),
            Self::Opens | Self::Flood => Limits::default(),
            Self::Messages => wide().with_messages(10.0, 10),
        }
    }

    /// What goes up while it is carried out.
    fn evidence(self, counters: &PeerCounters) -> u64 {
        match self {
            Self::Tarpit => counters.dropped_outgoing.get(),
            Self::Gigabyte | Self::Opens | Self::Flood => counters.conn_established_inbound.get(),
            Self::Messages => counters.dropped_rate.get(),
        }
    }

    /// One attempt. Over when the connection is.
    async fn once(self, address: &Multiaddr, on: &AtomicBool) -> Result<(), Box<dyn std::error::Error>> {
        let mut connection = tokio::time::timeout(PATIENCE, dial(HOSTILE, address)).await??;
        match self {
            Self::Tarpit => {
                connection.write_all(&open("x")).await?;
                connection.flush().await?;
                let mut some = [0; 1000];
                while on.load(Ordering::Relaxed) {
                    connection.read_exact(&mut some).await?;
                    sleep(Duration::from_millis(10)).await;
                }
            }
            Self::Gigabyte => {
                connection.write_all(&header(3, id("x"), 1 << 30)).await?;
                for _ in 0..10 {
                    connection.write_all(&[0; 10_000]).await?;
                    connection.flush().await?;
                    sleep(Duration::from_millis(2)).await;
                }
            }
            Self::Opens => {
                // Made once: what making them takes is not the victim's.
                static FRAMES: LazyLock<Vec<u8>> = LazyLock::new(|| opens(6000));
                connection.write_all(&FRAMES).await?;
                connection.flush().await?;
                let mut rest = Vec::new();
                connection.read_to_end(&mut rest).await?;
            }
            Self::Flood => {
                let frames = message(&[0; 1000]).repeat(100);
                loop {
                    connection.write_all(&frames).await?;
                    connection.flush().await?;
                }
            }
            Self::Messages => {
                let frames = message(&[0; 100]).repeat(20);
                while on.load(Ordering::Relaxed) {
                    connection.write_all(&frames).await?;
                    connection.flush().await?;
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        Ok(())
    }

    /// Again and again, as long as `on` says so.
    async fn carry_out(self, address: Multiaddr, on: Arc<AtomicBool>, over: Arc<AtomicBool>) {
        while !over.load(Ordering::Relaxed) {
            if on.load(Ordering::Relaxed) {
                // That it is thrown out is what it is about.
                let _ = self.once(&address, &on).await;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What the other threads know of the victim.
struct Victim {
    address: Multiaddr,
    counters: Arc<PeerCounters>,
}

/// A host that echoes what the honest peer says, and sends much to the hostile one while `on` says so.
async fn victim(attack: Attack, found: mpsc::Sender<Victim>, on: Arc<AtomicBool>, over: Arc<AtomicBool>) {
    // Whoever attacks may come again a hundred times a second.
    let config = config(knock(VICTIM))
        .with_dial_interval(Duration::from_millis(20))
        .with_memory_budget(64 << 20);
    let host = Host::start(config, StaticList::new()).await.unwrap();
    let echo = host.open_stream(peer(HONEST), "x", wide()).unwrap();
    let hostile = host.open_stream(peer(HOSTILE), "x", attack.limits()).unwrap();
    let echo = tokio::spawn(async move {
        while let Some(question) = echo.recv().await {
            echo.send(question);
        }
    });
    let address = host.listen_addresses().pop().unwrap();
    let counters = host.counters().peer(&peer(HOSTILE)).unwrap();
    found.send(Victim { address, counters }).unwrap();
    while !over.load(Ordering::Relaxed) {
        if attack == Attack::Tarpit && on.load(Ordering::Relaxed) {
            hostile.send(vec![0; 1 << 17]);
        }
        sleep(Duration::from_millis(1)).await;
    }
    host.close().await;
    echo.await.unwrap();
}

/// How late the answers of a phase are: all but one in a hundred no later than this.
async fn p99(stream: &Stream, phase: u64) -> Duration {
    let begun = Instant::now();
    let due = |n: u64| begun + PACE * u32::try_from(n).unwrap();
    let name = |n: u64| phase * QUESTIONS + n;
    let ask = async {
        for n in 0..QUESTIONS {
            tokio::time::sleep_until(due(n).into()).await;
            stream.send(name(n).to_be_bytes().to_vec());
        }
    };
    let answers = async {
        let mut late = Vec::new();
        for n in 0..QUESTIONS {
            let answer = stream.recv().await.unwrap();
            assert_eq!(answer, name(n).to_be_bytes().as_slice(), "none is lost");
            late.push(due(n).elapsed());
        }
        late
    };
    let both = futures::future::join(ask, answers);
    let (_, mut late) = tokio::time::timeout(PATIENCE, both).await.expect("answers");
    late.sort_unstable();
    late[late.len() * 99 / 100]
}

fn thread(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || runtime().block_on(work))
}

fn an_honest_peer_does_not_notice(attack: Attack) {
    let _alone = alone();
    let (on, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (found, finding) = mpsc::channel();
    let victim = thread(victim(attack, found, on.clone(), over.clone()));
    let Victim { address, counters } = finding.recv().unwrap();
    let attacker = thread(attack.carry_out(address.clone(), on.clone(), over.clone()));

    let measured = runtime().block_on(async {
        let list = StaticList::from_iter([(peer(VICTIM), address)]);
        let host = Host::start(config(knock(HONEST)), list).await.unwrap();
        let stream = host.open_stream(peer(VICTIM), "x", wide()).unwrap();
        p99(&stream, 0).await;
        let (mut good, mut rounds) = (0, Vec::new());
        for round in 0..ROUNDS as u64 {
            let idle = p99(&stream, 2 * round + 1).await;
            on.store(true, Ordering::Relaxed);
            let before = attack.evidence(&counters);
            let waited = Instant::now();
            while attack.evidence(&counters) == before {
                assert!(waited.elapsed() < PATIENCE, "there is no attack");
                sleep(Duration::from_millis(1)).await;
            }
            let before = attack.evidence(&counters);
            let attacked = p99(&stream, 2 * round + 2).await;
            let events = attack.evidence(&counters) - before;
            on.store(false, Ordering::Relaxed);
            rounds.push((idle, attacked, events));
            let bound = (idle * 3 / 2).max(idle + Duration::from_millis(5));
            if events > 0 && attacked <= bound {
                good += 1;
            }
            if good == GOOD {
                break;
            }
            // What the attack has left behind is not the next phase's.
            sleep(Duration::from_millis(300)).await;
        }
        let connections = host.counters().peer(&peer(VICTIM)).unwrap().conn_established.get();
        host.close().await;
        (good, rounds, connections)
    });
    over.store(true, Ordering::Relaxed);
    victim.join().unwrap();
    attacker.join().unwrap();
    let (good, rounds, connections) = measured;
    println!("{attack:?}: (p99 idle, p99 attacked, how often): {rounds:?}");
    assert_eq!(good, GOOD, "too late beside {attack:?}: {rounds:?}");
    assert_eq!(connections, 1, "the honest peer lost its connection");
}

#[test]
fn a_peer_that_takes_nothing_delays_nobody() {
    an_honest_peer_does_not_notice(Attack::Tarpit);
}

#[test]
fn a_gigabyte_that_is_announced_delays_nobody() {
    an_honest_peer_does_not_notice(Attack::Gigabyte);
}

#[test]
fn thousands_of_opens_delay_nobody() {
    an_honest_peer_does_not_notice(Attack::Opens);
}

#[test]
fn a_flood_over_the_limit_delays_nobody() {
    an_honest_peer_does_not_notice(Attack::Flood);
}

#[test]
fn messages_over_a_rate_delay_nobody() {
    an_honest_peer_does_not_notice(Attack::Messages);
}
