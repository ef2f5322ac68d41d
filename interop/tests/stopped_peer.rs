//! A peer whose process is stopped neither answers nor hangs up. A trim that closes its connection ends all the same.

#![cfg(target_os = "linux")]

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use interop::process::Process;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{PeerId, Swarm};
use libp2p_connmgr::{Behaviour, Config, KeepAlive, Manager};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// Generous, for machines that do other things too.
const SOON: Duration = Duration::from_secs(60);
/// A close takes no longer than the five seconds that the transports bound it by.
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_stopped_peer_cannot_hold_a_trim() -> Result<()> {
    let config = Config::new(1, 1_000)?
        .with_grace_period(Duration::ZERO)
        .with_close_deadline(DEADLINE)
        .with_keep_alive(KeepAlive::All);
    let (connmgr, manager) = libp2p_connmgr::new(config);
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(Keypair::generate_ed25519())
        .with_tokio()
        .with_other_transport(|key| {
            let transport = libp2p_knock::tokio::Transport::new(libp2p_knock::Config::new(key)?);
            Ok(manager.count(transport))
        })?
        .with_behaviour(|_| connmgr)?
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0/tls".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let mut peers = Vec::new();
    for seed in [61, 62] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keeper"));
        let mut peer = Process::spawn(format!("keeper {seed}"), command.args(["--seed", &seed.to_string()]))?;
        peer.send(&json!({ "command": "want", "peer": swarm.local_peer_id().to_string(), "addresses": [&address] }))?;
        peers.push(peer);
    }
    until(&mut swarm, || manager.info().connections == 2).await?;
    manager.tag_peer(&id(61)?, "kept", 1);

    // Not killed: its sockets stay open, and what is sent to them stays unread.
    let stopped = peers[1].id();
    ensure!(
        Command::new("kill")
            .args(["-STOP", &stopped.to_string()])
            .status()?
            .success()
    );
    until(&mut swarm, || is_stopped(stopped)).await?;
    let trimmed = trim(&mut swarm, &manager).await?;
    ensure!(trimmed.closed + trimmed.stuck == 1, "{trimmed:?}");
    ensure!(manager.info().connections == 1 && swarm.is_connected(&id(61)?));
    // Whatever was stuck is gone once the close itself is over.
    until(&mut swarm, || manager.info().closing == 0).await?;
    ensure!(!swarm.is_connected(&id(62)?));
    ensure!(is_stopped(stopped), "it was stopped all the time");
    Ok(())
}

async fn trim(swarm: &mut Swarm<Behaviour>, manager: &Manager) -> Result<libp2p_connmgr::Trimmed> {
    let mut trimming = manager.trim_open_conns();
    let drive = async {
        loop {
            tokio::select! {
                trimmed = &mut trimming => return trimmed,
                _ = swarm.select_next_some() => {}
            }
        }
    };
    tokio::time::timeout(SOON, drive)
        .await
        .context("the trim never ends")?
        .context("the trim")
}

/// Drives the Swarm until it is so.
async fn until(swarm: &mut Swarm<Behaviour>, is_so: impl Fn() -> bool) -> Result<()> {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let drive = async {
        while !is_so() {
            tokio::select! {
                _ = swarm.select_next_some() => {}
                _ = look.tick() => {}
            }
        }
    };
    tokio::time::timeout(SOON, drive).await.context("not so in time")
}

/// A keeper's identity is its number's.
fn id(seed: u8) -> Result<PeerId> {
    Ok(Keypair::ed25519_from_bytes([seed; 32])?.public().to_peer_id())
}

fn is_stopped(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state stands behind the name, which is in brackets and may hold anything.
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('T'))
}
