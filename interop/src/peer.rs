//! The program `peer` as a child process, and the questions tests put to it.

use crate::process::Process;
use anyhow::{Context as _, Result};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// How long an event may take before a test gives up. Far more than any takes, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Which transports a peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transports {
    /// The knock alone.
    Knock,
    /// libp2p's own TCP + Noise + yamux alone.
    Stock,
    /// One of each, on a port of its own.
    Both,
}

/// A running `peer` that listens.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    /// Who it is.
    pub id: PeerId,
    knock: Option<Multiaddr>,
    stock: Option<Multiaddr>,
}

impl Peer {
    /// Starts `program` on ports that are free, with the behaviours `with`, and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn spawn(program: &str, transports: Transports, name: &str, seed: u64, with: &str) -> Result<Self> {
        Self::spawn_with(program, transports, name, seed, with, &[])
    }

    /// The same with further arguments.
    ///
    /// # Errors
    ///
    /// When it does not listen.
    pub fn spawn_with(
        program: &str,
        transports: Transports,
        name: &str,
        seed: u64,
        with: &str,
        more: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--seed", &seed.to_string()]).args(more);
        if !with.is_empty() {
            command.args(["--with", with]);
        }
        let knock = matches!(transports, Transports::Knock | Transports::Both);
        let stock = matches!(transports, Transports::Stock | Transports::Both);
        if knock {
            command.args(["--knock", "/ip4/127.0.0.1/tcp/0/tls"]);
        }
        if stock {
            command.args(["--stock", "/ip4/127.0.0.1/tcp/0"]);
        }
        let process = Process::spawn(name, &mut command)?;
        let started = process.wait_for(|event| event["event"] == "started", PATIENCE)?;
        let listening = |by: &str| -> Result<Multiaddr> {
            let event = process.wait_for(|event| event["event"] == "listening" && event["by"] == by, PATIENCE)?;
            address(&event["address"])
        };
        Ok(Self {
            id: started["peer"].as_str().context("a peer id")?.parse()?,
            knock: knock.then(|| listening("knock")).transpose()?,
            stock: stock.then(|| listening("stock")).transpose()?,
            process,
        })
    }

    /// Where it listens by knock.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn knock(&self) -> Result<&Multiaddr> {
        self.knock.as_ref().context("it has no knock transport")
    }

    /// Where it listens by TCP + Noise.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn stock(&self) -> Result<&Multiaddr> {
        self.stock.as_ref().context("it has no stock transport")
    }

    /// What others dial to reach it by knock.
    ///
    /// # Errors
    ///
    /// When it does not listen by knock.
    pub fn knock_dial(&self) -> Result<String> {
        Ok(format!("{}/p2p/{}", self.knock()?, self.id))
    }

    /// What others dial to reach it by TCP + Noise.
    ///
    /// # Errors
    ///
    /// When it does not listen by TCP + Noise.
    pub fn stock_dial(&self) -> Result<String> {
        Ok(format!("{}/p2p/{}", self.stock()?, self.id))
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Gives it a command, see the program's `commands` module.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn tell(&mut self, command: &Value) -> Result<()> {
        self.process.send(command)
    }

    /// The next event called `name`.
    ///
    /// # Errors
    ///
    /// When there is none within [`PATIENCE`].
    pub fn hear(&self, name: &str) -> Result<Value> {
        self.hear_that(name, |_| true)
    }

    /// The next event called `name` in which `field` is `value`.
    ///
    /// # Errors
    ///
    /// When there is none within [`PATIENCE`].
    pub fn hear_with(&self, name: &str, field: &str, value: impl ToString) -> Result<Value> {
        let value = value.to_string();
        self.hear_that(name, |event| event[field] == value.as_str())
            .with_context(|| format!("awaiting {name} with {field} {value}"))
    }

    /// The next event called `name` that `wanted` accepts.
    ///
    /// # Errors
    ///
    /// When there is none within [`PATIENCE`].
    pub fn hear_that(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.process
            .wait_for(|event| event["event"] == name && wanted(event), PATIENCE)
            .with_context(|| format!("awaiting {name}"))
    }

    /// Everything it has told so far.
    pub fn told(&self) -> Vec<Value> {
        self.process.events()
    }

    /// Whether it has told of a connection with `other`.
    pub fn has_met(&self, other: PeerId) -> bool {
        let other = other.to_string();
        self.told()
            .iter()
            .any(|event| event["event"] == "connected" && event["peer"] == other.as_str())
    }
}

/// The address that a field of an event holds.
///
/// # Errors
///
/// When it holds something else.
pub fn address(field: &Value) -> Result<Multiaddr> {
    let text = field.as_str().with_context(|| format!("no address: {field}"))?;
    text.parse().with_context(|| format!("no address: {text}"))
}

/// The addresses that a field of an event lists.
///
/// # Errors
///
/// When it is no list of addresses.
pub fn addresses(field: &Value) -> Result<Vec<Multiaddr>> {
    let list = field.as_array().with_context(|| format!("no list: {field}"))?;
    list.iter().map(address).collect()
}

/// Every address anywhere in `event`.
pub fn all_addresses(event: &Value) -> Vec<Multiaddr> {
    match event {
        Value::String(text) if text.starts_with('/') => text.parse().into_iter().collect(),
        Value::Array(values) => values.iter().flat_map(all_addresses).collect(),
        Value::Object(fields) => fields.values().flat_map(all_addresses).collect(),
        _ => Vec::new(),
    }
}

/// Whether the knock's mark is on an address: it ends in `/tls`, or in `/tls/p2p/<peer>`.
pub fn is_marked(address: &Multiaddr) -> bool {
    let mut address = address.clone();
    match address.pop() {
        Some(Protocol::P2p(_)) => address.pop() == Some(Protocol::Tls),
        last => last == Some(Protocol::Tls),
    }
}

/// The TCP port in an address.
pub fn port(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|protocol| match protocol {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    })
}
