//! A policy that does what no policy should.

use libp2p_gater::{
    Accept, AddrDial, Changes, ConnectionGater, Gate, Knock, LiveConnection, Observation, PeerDial, PendingConnection,
    Reason, Secured, Upgraded, Verdict, goodbye::Code, goodbye::Goodbye,
};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// What it is asked, or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    PeerDial,
    AddrDial,
    Accept,
    Knock,
    Secured,
    Upgraded,
    Live,
    Pending,
    Observe,
}

impl Call {
    pub(crate) const ALL: [Self; 9] = [
        Self::PeerDial,
        Self::AddrDial,
        Self::Accept,
        Self::Knock,
        Self::Secured,
        Self::Upgraded,
        Self::Live,
        Self::Pending,
        Self::Observe,
    ];
}

/// What it does then.
#[derive(Clone)]
pub(crate) enum Fault {
    Panic,
    /// With something that panics once more when it is dropped.
    Bomb,
    /// Calls the gate, and whatever else this does.
    Reenter(Gate, Arc<dyn Fn() + Send + Sync>),
    /// Says that it was asked, and waits to be let go on.
    Block(Sender<()>, Arc<Mutex<Receiver<()>>>),
}

impl Fault {
    /// One that blocks; what says that it does, and what lets it go on.
    pub(crate) fn block() -> (Self, Receiver<()>, Sender<()>) {
        let ((tell, told), (go, wait)) = (channel(), channel());
        (Self::Block(tell, Arc::new(Mutex::new(wait))), told, go)
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload of a panic panics");
    }
}

#[derive(Default)]
struct State {
    armed: Option<(Call, Fault)>,
    hits: Vec<Call>,
}

#[derive(Clone, Default)]
pub(crate) struct Faulty {
    state: Arc<Mutex<State>>,
    changes: Changes,
}

impl Faulty {
    /// Misbehaves at `call` from now on.
    pub(crate) fn arm(&self, call: Call, fault: Fault) {
        self.state.lock().unwrap().armed = Some((call, fault));
    }

    pub(crate) fn disarm(&self) {
        self.state.lock().unwrap().armed = None;
    }

    /// At which calls it has misbehaved.
    pub(crate) fn hits(&self) -> Vec<Call> {
        self.state.lock().unwrap().hits.clone()
    }

    fn call(&self, call: Call) -> Verdict {
        let mut state = self.state.lock().unwrap();
        let armed = state.armed.clone().filter(|(at, _)| *at == call);
        let Some((_, fault)) = armed else { return Verdict::Pass };
        state.hits.push(call);
        drop(state);
        match fault {
            Fault::Panic => panic!("at {call:?}"),
            Fault::Bomb => std::panic::panic_any(Bomb),
            Fault::Reenter(gate, besides) => {
                self.disarm();
                gate.recheck();
                gate.explain(None, None);
                gate.policy().explain(None, None);
                let (peer, id) = (libp2p::PeerId::random(), libp2p::swarm::ConnectionId::new_unchecked(77));
                gate.close(peer, id, Goodbye::new(Code::Trimmed));
                gate.closer()(peer, id, "again");
                drop(gate.behaviour());
                self.changes.tightened();
                besides();
            }
            Fault::Block(tell, wait) => {
                tell.send(()).unwrap();
                wait.lock().unwrap().recv().unwrap();
            }
        }
        match call {
            Call::Observe => Verdict::Pass,
            _ => Verdict::Deny(Reason::new("faulty")),
        }
    }
}

impl ConnectionGater for Faulty {
    fn intercept_peer_dial(&self, _: &PeerDial<'_>) -> Verdict {
        self.call(Call::PeerDial)
    }
    fn intercept_addr_dial(&self, _: &AddrDial<'_>) -> Verdict {
        self.call(Call::AddrDial)
    }
    fn intercept_accept(&self, _: &Accept<'_>) -> Verdict {
        self.call(Call::Accept)
    }
    fn intercept_knock(&self, _: &Knock<'_>) -> Verdict {
        self.call(Call::Knock)
    }
    fn intercept_secured(&self, _: &Secured<'_>) -> Verdict {
        self.call(Call::Secured)
    }
    fn intercept_upgraded(&self, _: &Upgraded<'_>) -> Verdict {
        self.call(Call::Upgraded)
    }
    fn judge_live(&self, _: &LiveConnection<'_>) -> Verdict {
        self.call(Call::Live)
    }
    fn judge_pending(&self, _: &PendingConnection<'_>) -> Verdict {
        self.call(Call::Pending)
    }
    fn observe(&self, _: &Observation<'_>) {
        let _ = self.call(Call::Observe);
    }
    fn changes(&self) -> Vec<Changes> {
        vec![self.changes.clone()]
    }
}
