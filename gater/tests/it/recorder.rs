//! A policy that writes down what it is asked, and says no where it is told to.

use libp2p::{Multiaddr, PeerId};
use libp2p_gater::{
    Accept, AddrDial, Changes, ConnectionGater, Direction, Knock, Link, LiveConnection, Observation, PeerDial,
    PendingConnection, Reason, Secured, Stage, TransportKind, Upgraded, Verdict,
};
use std::sync::{Arc, Mutex};

/// One question.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) stage: Stage,
    pub(crate) direction: Direction,
    pub(crate) kind: TransportKind,
    pub(crate) peer: Option<PeerId>,
    pub(crate) local: Option<Multiaddr>,
    pub(crate) remote: Option<Multiaddr>,
    /// Whether the connection had an id in the Swarm: only the behaviour knows one.
    pub(crate) in_swarm: bool,
    pub(crate) denied: bool,
}

type Rule = Box<dyn Fn(&Asked) -> bool + Send>;

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    observed: Vec<String>,
    deny: Option<Rule>,
}

#[derive(Clone, Default)]
pub(crate) struct Recorder {
    state: Arc<Mutex<State>>,
    changes: Changes,
}

impl Recorder {
    /// Says no from now on to whatever `rule` picks, without ringing.
    pub(crate) fn deny(&self, rule: impl Fn(&Asked) -> bool + Send + 'static) {
        self.state.lock().unwrap().deny = Some(Box::new(rule));
    }

    /// The same, and says that it did.
    pub(crate) fn tighten(&self, rule: impl Fn(&Asked) -> bool + Send + 'static) {
        self.deny(rule);
        self.changes.tightened();
    }

    /// Says no to nothing any more.
    pub(crate) fn allow(&self) {
        self.state.lock().unwrap().deny = None;
    }

    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().asked.clear();
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    pub(crate) fn observed(&self) -> Vec<String> {
        self.state.lock().unwrap().observed.clone()
    }

    pub(crate) fn has_denied(&self) -> bool {
        self.state.lock().unwrap().asked.iter().any(|asked| asked.denied)
    }

    fn answer(&self, stage: Stage, peer: Option<&PeerId>, link: &Link<'_>) -> Verdict {
        let mut asked = Asked {
            stage,
            direction: link.direction,
            kind: link.parts.kind,
            peer: peer.copied(),
            local: link.local.cloned(),
            remote: link.remote.cloned(),
            in_swarm: link.connection.is_some(),
            denied: false,
        };
        let mut state = self.state.lock().unwrap();
        asked.denied = state.deny.as_ref().is_some_and(|rule| rule(&asked));
        let verdict = match asked.denied {
            true => Verdict::Deny(Reason::new("told-to")),
            false => Verdict::Pass,
        };
        state.asked.push(asked);
        verdict
    }
}

impl ConnectionGater for Recorder {
    fn intercept_peer_dial(&self, dial: &PeerDial<'_>) -> Verdict {
        let mut link = Link::unknown(dial.role);
        link.direction = Direction::Outbound;
        link.connection = dial.connection;
        self.answer(Stage::PeerDial, Some(dial.peer), &link)
    }
    fn intercept_addr_dial(&self, dial: &AddrDial<'_>) -> Verdict {
        self.answer(Stage::AddrDial, dial.peer, &dial.link)
    }
    fn intercept_accept(&self, accept: &Accept<'_>) -> Verdict {
        self.answer(Stage::Accept, accept.link.parts.peer.as_ref(), &accept.link)
    }
    fn intercept_knock(&self, knock: &Knock<'_>) -> Verdict {
        self.answer(Stage::Knock, Some(knock.peer), &knock.link)
    }
    fn intercept_secured(&self, secured: &Secured<'_>) -> Verdict {
        self.answer(Stage::Secured, Some(secured.peer), &secured.link)
    }
    fn intercept_upgraded(&self, upgraded: &Upgraded<'_>) -> Verdict {
        self.answer(Stage::Upgraded, Some(upgraded.peer), &upgraded.link)
    }
    fn judge_live(&self, live: &LiveConnection<'_>) -> Verdict {
        self.answer(Stage::Live, Some(live.peer), &live.link)
    }
    fn judge_pending(&self, pending: &PendingConnection<'_>) -> Verdict {
        self.answer(Stage::Live, pending.peer, &pending.link)
    }
    fn observe(&self, observation: &Observation<'_>) {
        let line = match observation {
            Observation::Pending { link, .. } => format!("pending {}", link.direction),
            Observation::Failed { direction, .. } => format!("failed {direction}"),
            Observation::Established { link, .. } => format!("established {}", link.direction),
            Observation::Closed { link, .. } => format!("closed {}", link.direction),
            _ => "other".to_owned(),
        };
        self.state.lock().unwrap().observed.push(line);
    }
    fn changes(&self) -> Vec<Changes> {
        vec![self.changes.clone()]
    }
}
