//! The node: how it is put together, what it does when it is told to, and what it makes of events.

use crate::Args;
use crate::behaviour::{Behaviour, BehaviourEvent, topic};
use crate::commands::{Command, Subject};
use crate::talks::Talks;
use crate::watch::{self, Marks, Watch};
use anyhow::{Context as _, Result, anyhow, bail};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, gossipsub, identify};
use libp2p_connmgr::{KeepAlive, Manager, persistent};
use libp2p_gater::{Change, ConnectionGater as _, FileError, Gate, Rule, RuleError, Rules, SaveError, Verdict};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often something happened to a wanted peer.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Wanted {
    /// Its last connection was gone.
    pub(crate) lost: u64,
    pub(crate) duplicates_closed: u64,
    pub(crate) unresponsive: u64,
}

/// A connection.
pub(crate) struct Open {
    pub(crate) peer: PeerId,
    pub(crate) dialled: bool,
    /// At which look it came.
    since: u64,
}

pub(crate) struct Node {
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) manager: Manager,
    pub(crate) marks: Marks,
    pub(crate) talks: Talks,
    pub(crate) watch: Watch,
    pub(crate) registry: Registry,
    /// As the Swarm's events tell them.
    pub(crate) open: HashMap<ConnectionId, Open>,
    pub(crate) listening: BTreeSet<Multiaddr>,
    pub(crate) wanted: Wanted,
    pub(crate) gossip_heard: u64,
    /// How often nothing could be accepted: for want of descriptors, mostly.
    pub(crate) accept_failures: u64,
    pub(crate) started: Instant,
    rules: Rules,
    file: PathBuf,
}

impl Node {
    pub(crate) fn start(args: &Args) -> Result<Self> {
        let key = std::fs::read(args.state.join("key")).context("reading the key")?;
        let key = Keypair::from_protobuf_encoding(&key).context("the key")?;
        let close_time = close_time(&args.state.join("close-time"))?;
        let file = args.state.join("rules");
        let rules = match Rules::load(&file) {
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Rules::new(),
            loaded => loaded?,
        };

        let mut registry = Registry::default();
        let gate = Gate::new(rules.clone()).with_metrics(&mut registry)?;
        let config = libp2p_connmgr::Config::new(args.low, args.high)?
            .with_hard_limit(args.hard)?
            .with_grace_period(Duration::from_millis(args.grace))
            .with_silence_period(Duration::from_millis(args.silence))?
            // By default 10 s, in which no other trim begins.
            .with_close_deadline(Duration::from_secs(4))
            // Only the marks decide.
            .with_keep_alive(KeepAlive::All)
            .with_closer(gate.closer())
            .with_metrics(&mut registry)?;
        let (connmgr, manager) = libp2p_connmgr::new(config);
        let mut swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_other_transport(|key| {
                let config = libp2p_knock::Config::new(key)?
                    .with_close_time_seed(&close_time)
                    .with_known_prefixes_file(args.state.join("known"))
                    .with_admission(gate.knock())
                    .with_secured_hook(gate.secured())
                    .with_metrics(&mut registry)?;
                Ok(manager.count(gate.transport(libp2p_knock::tokio::Transport::new(config))))
            })?
            .with_behaviour(|key| Ok(Behaviour::new(key, args.still, &gate, connmgr, &manager)?))?
            .with_swarm_config(|config| config)
            .with_connection_timeout(Duration::from_secs(5))
            .build();
        swarm.listen_on(args.listen.clone())?;
        Ok(Self {
            talks: Talks::new(swarm.behaviour().streams.handle()),
            swarm,
            manager,
            marks: Marks {
                patience: (args.grace + 2 * args.silence) / u64::try_from(watch::TICK.as_millis())?,
                low: args.low,
                high: args.high,
                hard: args.hard,
            },
            watch: Watch::default(),
            registry,
            open: HashMap::new(),
            listening: BTreeSet::new(),
            wanted: Wanted::default(),
            gossip_heard: 0,
            accept_failures: 0,
            started: Instant::now(),
            rules,
            file,
        })
    }

    pub(crate) fn peer(&self) -> &PeerId {
        self.swarm.local_peer_id()
    }

    pub(crate) fn run(&mut self, command: Command) -> Result<Value> {
        match command {
            Command::Want { peer, addresses } => {
                self.talks.begin(peer)?;
                self.swarm.behaviour_mut().persistent.add_peer(peer, addresses)?;
            }
            Command::Serve { peer } => {
                self.talks.begin(peer)?;
                self.manager.protect(&peer, "served");
            }
            Command::Dial { address } => {
                let Some(Protocol::P2p(peer)) = address.iter().last() else {
                    bail!("{address} does not end in the id of a peer");
                };
                let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always);
                // That a gate or a limit says no is an outcome, not a mistake.
                let dialled = self.swarm.dial(opts.addresses(vec![address]).build());
                return Ok(json!({ "refused": dialled.err().map(|error| error.to_string()) }));
            }
            Command::Insert { rule } => return Ok(self.change(&rule, |change| change.insert(rule.clone()))),
            Command::Remove { rule } => {
                return Ok(self.change(&rule, |change| {
                    change.remove(rule.clone());
                    Ok(())
                }));
            }
            Command::Reload => {
                let reloaded = self.rules.reload(&self.file);
                return Ok(json!({ "refused": reloaded.err().map(|error| kind(&error.into())) }));
            }
            Command::Rules => {
                let mut rules: Vec<_> = self.rules.list().iter().map(Rule::to_string).collect();
                rules.sort_unstable();
                return Ok(json!(rules));
            }
            Command::Judge { subjects } => {
                let denied = subjects.iter().map(|subject| self.denies(subject));
                return Ok(denied.collect());
            }
            Command::State => return Ok(self.state()),
            Command::Gossip { text } => {
                let published = self.swarm.behaviour_mut().gossipsub.publish(topic(), text);
                return Ok(json!({ "refused": published.err().map(|error| error.to_string()) }));
            }
        }
        Ok(json!({}))
    }

    /// Changes rules and file. Answers how that went, and whether the rule is on its list now.
    fn change(&self, rule: &Rule, change: impl FnOnce(&mut Change) -> Result<(), RuleError>) -> Value {
        let saved = self.rules.change_and_save(&self.file, change);
        let listed = self.rules.list().contains(rule);
        json!({ "refused": saved.err().map(|error| kind(&error)), "listed": listed })
    }

    /// Whether it would be refused at some stage.
    fn denies(&self, subject: &Subject) -> bool {
        let said = match subject {
            Subject::Peer(peer) => self.rules.explain(Some(peer), None),
            Subject::Ip(ip) => {
                let address = Multiaddr::from(*ip).with(Protocol::Tcp(4001)).with(Protocol::Tls);
                self.rules.explain(None, Some(&address))
            }
        };
        said.iter().any(|line| matches!(line.verdict, Verdict::Deny(_)))
    }

    pub(crate) fn look(&mut self) {
        let counts = self.manager.counts();
        let overdue = self.overdue();
        self.watch.look(self.marks, &counts, self.open.len(), overdue);
    }

    /// How many connections have been candidates of at least one trim, if there was one: old
    /// enough, of peers that are not protected, and not being closed.
    fn overdue(&self) -> usize {
        let is_old = |id: &ConnectionId| {
            let since = self.open.get(id).map(|open| open.since);
            since.is_some_and(|since| self.watch.looks() - since > self.marks.patience)
        };
        let peers: BTreeSet<&PeerId> = self.open.values().map(|open| &open.peer).collect();
        let infos = peers.into_iter().filter_map(|peer| self.manager.tag_info(peer));
        infos
            .filter(|info| info.protections.is_empty())
            .flat_map(|info| info.connections)
            .filter(|connection| !connection.closing && is_old(&connection.id))
            .count()
    }

    pub(crate) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                println!("{}", json!({ "event": "listening", "address": address }));
                self.listening.insert(address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => _ = self.listening.remove(&address),
            SwarmEvent::ListenerClosed { reason, addresses, .. } => {
                self.listening.retain(|address| !addresses.contains(address));
                self.tell(format_args!("the listener closed: {reason:?}"));
            }
            SwarmEvent::ListenerError { error, .. } => {
                self.accept_failures += 1;
                self.tell(format_args!("the listener failed: {error}"));
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                let open = Open {
                    peer: peer_id,
                    dialled: endpoint.is_dialer(),
                    since: self.watch.looks(),
                };
                self.open.insert(connection_id, open);
                self.watch.newcomer(self.manager.info().connections, self.open.len());
                let address = endpoint.get_remote_address();
                let way = if endpoint.is_dialer() { "to" } else { "from" };
                self.tell(format_args!("{connection_id} {way} {peer_id} at {address}"));
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                self.open.remove(&connection_id);
                let cause = cause.map_or_else(|| "by us".to_owned(), |error| error.to_string());
                self.tell(format_args!("{connection_id} with {peer_id} is gone: {cause}"));
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => self.tell(format_args!("{peer} was dialled in vain: {error}")),
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                // As every application with both does.
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                    for address in info.listen_addrs {
                        kad.add_address(&peer_id, address);
                    }
                }
            }
            BehaviourEvent::Gossipsub(gossipsub::Event::Message { .. }) => self.gossip_heard += 1,
            BehaviourEvent::Gate(event) => self.tell(format_args!("gate: {event:?}")),
            BehaviourEvent::Connmgr(event) => self.tell(format_args!("manager: {event:?}")),
            BehaviourEvent::Persistent(event) => {
                let count = match event {
                    persistent::Event::Disconnected { .. } => Some(&mut self.wanted.lost),
                    persistent::Event::DuplicateClosed { .. } => Some(&mut self.wanted.duplicates_closed),
                    persistent::Event::Unresponsive { .. } => Some(&mut self.wanted.unresponsive),
                    _ => None,
                };
                if let Some(count) = count {
                    *count += 1;
                }
                self.tell(format_args!("wanted: {event:?}"));
            }
            _ => {}
        }
    }

    /// For people.
    fn tell(&self, what: std::fmt::Arguments<'_>) {
        println!("# {:.3} {what}", self.started.elapsed().as_secs_f64());
    }
}

/// 32 random bytes, made at the first start.
fn close_time(path: &Path) -> Result<[u8; 32]> {
    match std::fs::read(path) {
        Ok(bytes) => bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| anyhow!("{} has {} bytes, not 32", path.display(), bytes.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed: [u8; 32] = rand::random();
            std::fs::write(path, seed).with_context(|| format!("writing {}", path.display()))?;
            Ok(seed)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Which error it is, in a few words that a test can tell apart, and then what it says.
fn kind(error: &SaveError) -> Value {
    let kind = match error {
        SaveError::File(FileError::Io { what, .. }) => format!("io: {what}"),
        SaveError::File(FileError::Line { .. }) => "line".to_owned(),
        SaveError::File(FileError::Rules { .. }) => "rules".to_owned(),
        SaveError::Rule(_) => "rule".to_owned(),
        // The name of the variant.
        other => format!("{other:?}")
            .split(|c: char| !c.is_alphanumeric())
            .take(2)
            .collect::<Vec<_>>()
            .join(": "),
    };
    let mut says = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        says.push_str(&format!(": {error}"));
        source = error.source();
    }
    json!({ "kind": kind, "says": says })
}
