//! Four nodes in one process, and everything that the transport promises, checked step by step.

mod cast;
mod report;
mod strangers;

use crate::link::Event;
use crate::random;
use crate::swarm;
use crate::{term, transfer};
use anyhow::{Context as _, Result, bail, ensure};
use cast::{Player, Scratch, port};
use libp2p::identity::Keypair;
use libp2p_knock::is_knock_address;
use report::{Detail, Report};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// What alice sends bob.
const FILE_SIZE: u64 = 64 * 1024 * 1024;
/// How long the nodes may take to be there.
const SETUP: Duration = Duration::from_secs(10);
/// How long strangers wait for an answer from alice.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs the demo. Returns whether every step went well.
pub(crate) async fn demo(json: bool) -> Result<bool> {
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let [mut alice, mut bob, mut carol, mut dave] = tokio::time::timeout(SETUP, enter(dir))
        .await
        .context("the nodes do not get to listen")??;

    let mut report = Report::new(json);
    report
        .say("Four libp2p nodes in one process. A friend knows alice's peer id; a stranger knows only her port.\n")?;
    for (player, kind, what) in [
        (&alice, "silent", "knock, TLS 1.3, yamux"),
        (&bob, "silent", "knock, TLS 1.3, yamux"),
        (&carol, "stock", "TCP, Noise, yamux"),
        (&dave, "both", "stock on one port, knock on another"),
    ] {
        let Player {
            name, id, addresses, ..
        } = player;
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        report.say(&format!("  {name:7}{kind:8}{what}"))?;
        report.say(&format!("         {id}"))?;
        report.say(&format!("         {}\n", addresses.join("  ")))?;
    }

    report
        .step("bob dials alice by knock", knock(&mut bob, &mut alice))
        .await?;
    report
        .step("alice and bob ping each other", ping(&mut alice, &mut bob))
        .await?;
    report
        .step("identify tells bob who alice is", identify(&mut bob, &alice))
        .await?;
    report
        .step("dave dials alice by knock", knock(&mut dave, &mut alice))
        .await?;
    report
        .step("carol dials dave by stock TCP", stock(&mut carol, &mut dave))
        .await?;
    report
        .step("carol has no connection but to dave", alone(&mut carol, &dave))
        .await?;
    report
        .step(
            "gossip from carol reaches alice and bob",
            gossip(&mut carol, &mut dave, &mut alice, &mut bob),
        )
        .await?;
    report
        .step("alice sends bob a file of 64 MiB", send(&alice, &mut bob, dir))
        .await?;

    // Both wait for an answer that never comes: let them do it together.
    let door = port(&alice.address(true)?)?;
    let probes = tokio::spawn(strangers::probes(door));
    let tap = strangers::tap(door).await?;
    carol.link.dial(tap.address()?);
    report
        .step("strangers send bytes to alice's port", strangers::nothing(probes))
        .await?;
    report
        .step(
            "carol dials alice's port by stock TCP",
            strangers::stock_dial(&mut carol, &alice, tap),
        )
        .await?;
    report
        .step("the friends are still connected", still(&alice, &bob, &dave))
        .await?;
    Ok(report.finish()?)
}

async fn enter(dir: &Path) -> Result<[Player; 4]> {
    let key = Keypair::generate_ed25519;
    let silent = |name| {
        let key = key();
        let config = libp2p_knock::Config::new(&key)?;
        swarm::silent(key, name, config, swarm::CONNECTIONS)
    };
    Ok([
        Player::enter("alice", silent("alice")?, dir, &["/tls"]).await?,
        Player::enter("bob", silent("bob")?, dir, &["/tls"]).await?,
        Player::enter("carol", swarm::stock(key(), "carol")?, dir, &[""]).await?,
        Player::enter("dave", swarm::both(key(), "dave")?, dir, &["", "/tls"]).await?,
    ])
}

async fn knock(caller: &mut Player, callee: &mut Player) -> Result<Detail> {
    let address = callee.address(true)?;
    let (there, back) = caller.connect(callee, &address).await?;
    ensure!(
        is_knock_address(&there) && is_knock_address(&back),
        "{there} and {back} should both carry /tls"
    );
    let shown = there.iter().take(3).collect::<libp2p::Multiaddr>();
    Ok(Detail::new(shown.to_string()).field("address", shown.to_string()))
}

async fn stock(caller: &mut Player, callee: &mut Player) -> Result<Detail> {
    let address = callee.address(false)?;
    let (there, back) = caller.connect(callee, &address).await?;
    ensure!(
        !is_knock_address(&there) && !is_knock_address(&back),
        "{there} and {back} should be stock addresses"
    );
    Ok(Detail::new(address.to_string()).field("address", address.to_string()))
}

async fn ping(alice: &mut Player, bob: &mut Player) -> Result<Detail> {
    let (one, other) = (alice.id, bob.id);
    let rtt = |wanted| {
        move |event: &Event| match event {
            Event::Pinged { peer, rtt } if *peer == wanted => Some(*rtt),
            _ => None,
        }
    };
    let (there, back) = tokio::try_join!(alice.wait(rtt(other)), bob.wait(rtt(one)))?;
    Ok(
        Detail::new(format!("{} and {}", term::duration(there), term::duration(back)))
            .field("rtt_ms", vec![there.as_secs_f64() * 1e3, back.as_secs_f64() * 1e3]),
    )
}

async fn identify(bob: &mut Player, alice: &Player) -> Result<Detail> {
    let (agent, addresses) = bob
        .wait(|event| match event {
            Event::Identified { peer, agent, addresses } if *peer == alice.id => {
                Some((agent.clone(), addresses.clone()))
            }
            _ => None,
        })
        .await?;
    ensure!(!addresses.is_empty(), "alice lists no address");
    ensure!(
        addresses.iter().all(is_knock_address),
        "not every address carries /tls: {addresses:?}"
    );
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Ok(Detail::new(agent.as_str())
        .line(format!("every address of hers carries /tls: {}", shown.join(" ")))
        .field("agent", agent)
        .field("addresses", shown))
}

/// What the next step proves rests on this.
async fn alone(carol: &mut Player, dave: &Player) -> Result<Detail> {
    let peers: Vec<_> = carol.link.peers().into_keys().collect();
    ensure!(peers == [dave.id], "carol is connected to {peers:?}");
    Ok(Detail::new("neither to alice nor to bob"))
}

async fn gossip(carol: &mut Player, dave: &mut Player, alice: &mut Player, bob: &mut Player) -> Result<Detail> {
    const TEXT: &str = "hello from the loud side";
    let from = carol.id;
    // Each hop has to know that the next one wants to hear of the topic.
    let wants = |next| move |event: &Event| matches!(event, Event::Subscribed(peer) if *peer == next).then_some(());
    tokio::try_join!(
        carol.wait(wants(dave.id)),
        dave.wait(wants(alice.id)),
        alice.wait(wants(bob.id))
    )?;
    carol.link.say(TEXT);
    let heard = |event: &Event| {
        matches!(event, Event::Chat { from: author, text } if *author == from && text == TEXT).then_some(())
    };
    tokio::try_join!(alice.wait(heard), bob.wait(heard))?;
    alone(carol, dave).await.context("meanwhile")?;
    Ok(Detail::new("carol (stock) > dave (both) > alice > bob (silent)").field("text", TEXT))
}

async fn send(alice: &Player, bob: &mut Player, dir: &Path) -> Result<Detail> {
    let (path, to) = (dir.join("random.bin"), bob.id);
    let target = path.clone();
    tokio::task::spawn_blocking(move || make_file(&target))
        .await?
        .with_context(|| format!("cannot write {}", path.display()))?;
    let bar = term::bar("alice > bob", FILE_SIZE);
    let begun = Instant::now();
    let receiving = bob.wait(|event| match event {
        Event::Progress { done, .. } => {
            bar.set_position(*done);
            None
        }
        Event::Received { result, .. } => Some(match result {
            Ok(received) => Ok(received.clone()),
            Err(error) => Err(anyhow::anyhow!("at bob: {error}")),
        }),
        _ => None,
    });
    let sending = async {
        transfer::send(&alice.link, to, alice.link.number(), &path)
            .await
            .context("at alice")
    };
    let ((size, sent), received) = tokio::try_join!(sending, receiving)?;
    let (received, took) = (received?, begun.elapsed());
    bar.finish_and_clear();
    ensure!(
        size == FILE_SIZE && received.size == size,
        "{size} bytes were sent, {} received",
        received.size
    );
    ensure!(sent == received.sha256, "the hashes differ");
    let rate = size as f64 / 1e6 / took.as_secs_f64();
    Ok(Detail::new(format!("{} ({rate:.0} MB/s)", term::duration(took)))
        .line(format!("SHA-256 at alice  {}", transfer::hex(&sent)))
        .line(format!("SHA-256 at bob    {}", transfer::hex(&received.sha256)))
        .field("bytes", size)
        .field("sha256", vec![transfer::hex(&sent), transfer::hex(&received.sha256)])
        .field("mb_per_s", rate))
}

/// The same bytes every time, so that the hash can be compared with the one in the README.
fn make_file(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    let (mut bytes, mut block) = (random::Bytes(1), vec![0; 1024 * 1024]);
    for _ in 0..FILE_SIZE / block.len() as u64 {
        bytes.fill(&mut block);
        file.write_all(&block)?;
    }
    Ok(())
}

async fn still(alice: &Player, bob: &Player, dave: &Player) -> Result<Detail> {
    let peers = alice.link.peers();
    if peers.len() != 2 || !peers.contains_key(&bob.id) || !peers.contains_key(&dave.id) {
        bail!("alice is connected to {peers:?}");
    }
    Ok(Detail::new("alice with bob and dave"))
}
