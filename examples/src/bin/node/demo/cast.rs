//! Who plays in the demo: a node, its name, and a memory of what it has seen.

use crate::inbox::Inbox;
use crate::link::{Event, Link};
use crate::node;
use crate::swarm::Behaviour;
use anyhow::{Context as _, Result, anyhow, bail};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Swarm};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) name: &'static str,
    pub(crate) id: PeerId,
    pub(crate) link: Link,
    pub(crate) addresses: Vec<Multiaddr>,
    events: mpsc::Receiver<Event>,
    seen: Vec<Event>,
}

impl Player {
    /// Starts `swarm` and listens on 127.0.0.1 at a random port for each of `suffixes`.
    pub(crate) async fn enter(
        name: &'static str,
        swarm: Swarm<Behaviour>,
        dir: &Path,
        suffixes: &[&str],
    ) -> Result<Self> {
        let id = *swarm.local_peer_id();
        let (link, events) = node::spawn(swarm, Inbox::new(dir.join(name), super::FILE_SIZE));
        let (addresses, seen) = (Vec::new(), Vec::new());
        let mut player = Self {
            name,
            id,
            link,
            addresses,
            events,
            seen,
        };
        for suffix in suffixes {
            player.link.listen(format!("/ip4/127.0.0.1/tcp/0{suffix}").parse()?);
            let known = player.addresses.clone();
            let listening = player.wait(|event| match event {
                Event::Listening(address) if !known.contains(address) => Some(Ok(address.clone())),
                Event::NotListening { address, why } => Some(Err(anyhow!("cannot listen on {address}: {why}"))),
                _ => None,
            });
            let address = listening.await?.with_context(|| name)?;
            player.addresses.push(address);
        }
        Ok(player)
    }

    /// Waits until an event is, or has been, what `pick` looks for.
    pub(crate) async fn wait<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> Result<T> {
        if let Some(found) = self.seen.iter().find_map(&mut pick) {
            return Ok(found);
        }
        loop {
            let event = self.events.recv().await.context("the node has stopped")?;
            let found = pick(&event);
            self.seen.push(event);
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// Dials `other` at `address` and waits until both ends are connected. Returns the address of each end as the
    /// other sees it.
    pub(crate) async fn connect(&mut self, other: &mut Self, address: &Multiaddr) -> Result<(Multiaddr, Multiaddr)> {
        let (us, them) = (self.id, other.id);
        self.link.dial(address.clone().with(Protocol::P2p(them)));
        let there = self
            .wait(|event| match event {
                Event::Connected {
                    peer,
                    address,
                    dialled: true,
                } if *peer == them => Some(Ok(address.clone())),
                Event::DialFailed { why } => Some(Err(anyhow!("{why}"))),
                _ => None,
            })
            .await??;
        let back = other.wait(|event| match event {
            Event::Connected {
                peer,
                address,
                dialled: false,
            } if *peer == us => Some(address.clone()),
            _ => None,
        });
        Ok((there, back.await?))
    }

    /// The first address to listen on that is, or is not, the knock transport's.
    pub(crate) fn address(&self, tls: bool) -> Result<Multiaddr> {
        let mut addresses = self.addresses.iter();
        let found = addresses.find(|address| libp2p_knock::is_knock_address(address) == tls);
        found
            .cloned()
            .with_context(|| format!("{} has no such address", self.name))
    }
}

/// The port in an address.
pub(crate) fn port(address: &Multiaddr) -> Result<u16> {
    for part in address {
        if let Protocol::Tcp(port) = part {
            return Ok(port);
        }
    }
    bail!("{address} has no port")
}

/// A directory for the files of the demo, removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("knock-demo-{:016x}", crate::random::seed()));
        let mut builder = std::fs::DirBuilder::new();
        // One that exists already is somebody else's.
        builder.recursive(false);
        // The directory for temporary files is everybody's.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
