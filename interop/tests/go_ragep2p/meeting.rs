//! Both ends, in both directions.

use futures::AsyncReadExt as _;
use interop::process::Process;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::{Endpoint, Transport as _};
use libp2p::identity::{Keypair, PeerId};
use libp2p::{Multiaddr, tcp};
use libp2p_knock::unanswered::{Cause, Heard};
use libp2p_knock::{Authenticated, Config, Error, Failure, KeyExchange, Mode, Role, TlsStream};
use serde_json::Value;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const GO: u8 = 2;
const RUST: u8 = 1;

/// SHA-256 of both keys, the larger first, and the stream's name, "x": ragep2p's id of that stream between seeds 01
/// and 02.
const STREAM_X: &str = "f8141c992d72d01caa652a76e369f14777eb6d0852998755baf3742a9252f2cf";

fn go_peer() -> Option<&'static Path> {
    interop::go::peer(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

#[derive(Debug, Clone, Copy)]
enum Stack {
    V1,
    New,
}

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    keypair(seed).public().to_peer_id()
}

/// A running Go host that knows seed 01, and perhaps where it is.
struct Go {
    process: Process,
    listen: String,
}

fn start_go(program: &Path, stack: Stack, group: KeyExchange, dial: Option<&str>) -> Go {
    let mut command = Command::new(program);
    command.args(["-seed", &hex::encode([GO; 32]), "-stream", "x"]);
    command.args([
        "-stack",
        match stack {
            Stack::V1 => "v1",
            Stack::New => "new",
        },
    ]);
    match dial {
        Some(address) => command.args(["-peer-addr", &format!("{}={address}", peer(RUST))]),
        None => command.args(["-peer", &peer(RUST).to_string()]),
    };
    if group == KeyExchange::X25519 {
        command.env("GODEBUG", "tlsmlkem=0");
    }
    let process = Process::spawn("go", &mut command).unwrap();
    let ready = process.wait_for(|event| event["event"] == "ready", PATIENCE).unwrap();
    assert_eq!(ready["peer_id"], peer(GO).to_string(), "one text for one peer");
    assert_eq!(ready["tls_mlkem"], group == KeyExchange::X25519MlKem768);
    Go {
        process,
        listen: ready["listen"].as_str().unwrap().to_owned(),
    }
}

impl Go {
    /// Waits until Go's own counters say that it has a connection with us.
    fn established(&self, direction: &str) -> Value {
        let event = self
            .process
            .wait_for(
                |event| event["event"] == "established" && event["direction"] == direction,
                PATIENCE,
            )
            .unwrap();
        assert_eq!(event["peer_id"], peer(RUST).to_string(), "one text for one peer");
        event
    }
}

type Inner = tcp::tokio::Transport;
type Stream = TlsStream<tcp::tokio::TcpStream>;

/// As the Go original; the mode is then set apart, to see what a wrong one does.
fn config(seed: u8) -> Config {
    Config::new(&keypair(seed)).unwrap().ragep2p_compatible()
}

fn ours(seed: u8, mode: Mode) -> Authenticated<Inner> {
    Authenticated::new(Inner::default(), config(seed).with_mode(mode))
}

async fn dial(mut transport: Authenticated<Inner>, listen: &str) -> Result<(PeerId, Stream), Failure> {
    let port = listen.rsplit(':').next().unwrap();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/tls/p2p/{}", peer(GO))
        .parse()
        .unwrap();
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    transport.dial(address, opts).unwrap().await
}

/// Listens, hands the port to `start`, and returns what the first caller became.
async fn accept(mode: Mode, start: impl FnOnce(String) + Send + 'static) -> Result<(PeerId, Stream), Failure> {
    let mut transport = ours(RUST, mode);
    let any: Multiaddr = "/ip4/127.0.0.1/tcp/0/tls".parse().unwrap();
    transport.listen_on(ListenerId::next(), any).unwrap();
    let mut start = Some(start);
    loop {
        match futures::future::poll_fn(|cx| Pin::new(&mut transport).poll(cx)).await {
            TransportEvent::NewAddress { listen_addr, .. } => {
                let port = listen_addr.to_string().split('/').nth(4).unwrap().to_owned();
                if let Some(start) = start.take() {
                    tokio::task::spawn_blocking(move || start(format!("127.0.0.1:{port}")));
                }
            }
            TransportEvent::Incoming { upgrade, .. } => return upgrade.await,
            _ => panic!("an event that a loopback listener has no reason for"),
        }
    }
}

/// Go opens its stream as soon as it has a connection: type 1, the stream's id, a length of 1, the name.
async fn first_frame(stream: &mut Stream) -> String {
    let mut frame = [0; 38];
    stream.read_exact(&mut frame).await.unwrap();
    hex::encode(frame)
}

fn opening_of_x() -> String {
    format!("01{STREAM_X}00000001{}", hex::encode("x"))
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") })
}

fn we_dial(stack: Stack, group: KeyExchange) {
    let Some(program) = go_peer() else { return };
    let go = start_go(program, stack, group, None);
    run(async {
        let (found, mut stream) = dial(ours(RUST, Mode::Frames), &go.listen).await.unwrap();
        assert_eq!(found, peer(GO));
        assert_eq!((stream.role(), stream.mode()), (Role::Dialer, Mode::Frames));
        assert_eq!(stream.key_exchange(), Some(group));
        assert_eq!(first_frame(&mut stream).await, opening_of_x());
        go.established("in");
    });
}

fn go_dials(stack: Stack, group: KeyExchange) {
    let Some(program) = go_peer() else { return };
    run(async {
        let (started, go) = std::sync::mpsc::channel();
        let accepted = accept(Mode::Frames, move |address| {
            started.send(start_go(program, stack, group, Some(&address))).unwrap();
        });
        let (caller, mut stream) = accepted.await.unwrap();
        assert_eq!(caller, peer(GO));
        assert_eq!((stream.role(), stream.mode()), (Role::Listener, Mode::Frames));
        assert_eq!(stream.key_exchange(), Some(group));
        assert_eq!(first_frame(&mut stream).await, opening_of_x());
        go.recv().unwrap().established("out");
    });
}

#[test]
fn go_lets_us_in_with_x25519_alone() {
    we_dial(Stack::V1, KeyExchange::X25519);
}

#[test]
fn go_lets_us_in_with_the_hybrid_group() {
    we_dial(Stack::V1, KeyExchange::X25519MlKem768);
}

#[test]
fn we_let_go_in_with_x25519_alone() {
    go_dials(Stack::V1, KeyExchange::X25519);
}

#[test]
fn we_let_go_in_with_the_hybrid_group() {
    go_dials(Stack::V1, KeyExchange::X25519MlKem768);
}

#[test]
fn the_newer_go_stack_knocks_alike_in_both_directions() {
    we_dial(Stack::New, KeyExchange::X25519MlKem768);
    go_dials(Stack::New, KeyExchange::X25519MlKem768);
}

#[test]
fn go_closes_on_a_peer_that_it_does_not_know_and_so_do_we_say() {
    let Some(program) = go_peer() else { return };
    let go = start_go(program, Stack::V1, KeyExchange::X25519, None);
    run(async {
        let failure = dial(ours(3, Mode::Frames), &go.listen).await.unwrap_err();
        let Error::Unanswered(unanswered) = failure.error() else {
            panic!("{failure:?}")
        };
        assert!(
            matches!(unanswered.heard(), Heard::Closed | Heard::Reset),
            "{unanswered:?}"
        );
        assert!(unanswered.causes().contains(&Cause::NotAdmitted), "{unanswered}");
    });
}

#[test]
fn a_listener_that_wants_a_muxer_tells_go_from_its_like() {
    let Some(program) = go_peer() else { return };
    run(async {
        let (started, go) = std::sync::mpsc::channel();
        let accepted = accept(Mode::Yamux, move |address| {
            let go = start_go(program, Stack::V1, KeyExchange::X25519, Some(&address));
            started.send(go).unwrap();
        });
        let failure = accepted.await.unwrap_err();
        assert!(
            matches!(failure.error(), Error::Mode { ours: Mode::Yamux }),
            "{failure:?}"
        );
        drop(go.recv());
    });
}
