//! Who there is: dialers, one listener in four configurations, and somebody else to be called by mistake.

use super::dialer::{Addressee, Agreed, Network, Pair};
use libp2p_core::Multiaddr;
use libp2p_identity::{Keypair, PeerId};
use libp2p_knock::internals::{self, Doorkeeper};
use libp2p_knock::{Config, Identity, KeyExchange, Mode, SignError, Version, knock::v2};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// The listener, and the one behind it.
pub const LISTENER: usize = 6;
pub const ANOTHER: usize = 7;

/// Openings in a second: few, as what remembers them is made anew for each run.
pub const OPENINGS: u64 = 4;

const X25519: u16 = 0x001d;
const X25519MLKEM768: u16 = 0x11ec;

pub struct World {
    pub parties: Vec<Party>,
    pub ephemerals: Vec<Pair>,
    pub agreed: Agreed,
    pub houses: Vec<House>,
    pub clock: Arc<Clock>,
    pub remotes: Vec<Multiaddr>,
    /// X25519 forms of Ed25519 keys.
    forms: HashMap<[u8; 32], Option<[u8; 32]>>,
}

pub struct Party {
    pub pair: Pair,
    pub addressee: Addressee,
    pub peer: PeerId,
    /// Its v2 knocks at [`LISTENER`] and [`ANOTHER`].
    pub v2: [[u8; v2::SIZE]; 2],
}

/// One configuration of the listener, and what is right for it.
pub struct House {
    pub doorkeeper: Doorkeeper,
    /// None for an identity that only signs.
    pub network: Option<Network>,
    pub other_network: Network,
    pub groups: Vec<u16>,
    dialect: (Version, Mode),
    peers: Vec<(usize, Version, Mode)>,
    pub denied: Option<usize>,
}

/// What the listener takes for the time, in milliseconds.
#[derive(Default)]
pub struct Clock {
    pub wall: AtomicU64,
    pub age: AtomicU64,
}

impl Clock {
    fn now(&self) -> (SystemTime, Duration) {
        let get = |time: &AtomicU64| Duration::from_millis(time.load(Ordering::Relaxed));
        (SystemTime::UNIX_EPOCH + get(&self.wall), get(&self.age))
    }
}

/// Does each Diffie-Hellman once.
struct Remembering {
    identity: Arc<dyn Identity>,
    agreed: Mutex<HashMap<[u8; 32], Option<[u8; 32]>>>,
}

impl Identity for Remembering {
    fn public_key(&self) -> [u8; 32] {
        self.identity.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.identity.sign(message)
    }

    fn agree(&self, peer: &[u8; 32]) -> Option<[u8; 32]> {
        let mut agreed = self.agreed.lock().expect("nobody panics");
        if agreed.len() > 10_000 {
            agreed.clear();
        }
        *agreed.entry(*peer).or_insert_with(|| self.identity.agree(peer))
    }
}

struct SignsOnly(Arc<dyn Identity>);

impl Identity for SignsOnly {
    fn public_key(&self) -> [u8; 32] {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        self.0.sign(message)
    }
}

fn keypair(party: usize) -> Keypair {
    Keypair::ed25519_from_bytes([party as u8 + 1; 32]).expect("32 bytes")
}

fn party(number: usize) -> Party {
    let keypair = keypair(number);
    let identity = internals::local(&keypair).expect("Ed25519");
    let pair = Pair::of_seed(&[number as u8 + 1; 32]);
    let at = |callee: usize| {
        let callee = internals::local(&self::keypair(callee)).expect("Ed25519");
        v2::seal(&*identity, &callee.public_key()).expect("signs")
    };
    Party {
        addressee: Addressee {
            ed25519: identity.public_key(),
            x25519: pair.public,
        },
        pair,
        peer: keypair.public().to_peer_id(),
        v2: [at(LISTENER), at(ANOTHER)],
    }
}

impl World {
    pub fn new() -> Self {
        let parties: Vec<_> = (0..=ANOTHER).map(party).collect();
        let clock = Arc::<Clock>::default();
        Self {
            ephemerals: (0..8).map(|n| Pair::new(&[0x40 + n; 32])).collect(),
            agreed: Agreed::default(),
            houses: houses(&parties, &clock),
            clock,
            remotes: ["/ip4/192.0.2.1", "/ip4/198.51.100.1", "/ip6/2001:db8::1", "/memory/1"]
                .map(|text| text.parse().expect("an address"))
                .to_vec(),
            forms: HashMap::new(),
            parties,
        }
    }

    /// The X25519 form of a key as it must be written: reduced, on the curve, of large order.
    pub fn form(&mut self, key: &[u8; 32]) -> Option<[u8; 32]> {
        if self.forms.len() > 10_000 {
            self.forms.clear();
        }
        *self.forms.entry(*key).or_insert_with(|| {
            let point = curve25519_dalek::edwards::CompressedEdwardsY(*key).decompress()?;
            // Written back, a point comes out in its one right way. But for x = 0, which has a sign all the same.
            let right = point.compress().to_bytes() == *key && !point.is_small_order();
            right.then(|| point.to_montgomery().to_bytes())
        })
    }
}

fn houses(parties: &[Party], clock: &Arc<Clock>) -> Vec<House> {
    let identity = internals::local(&keypair(LISTENER)).expect("Ed25519");
    let remembering = Arc::new(Remembering {
        identity: identity.clone(),
        agreed: Mutex::default(),
    });
    let config = || Config::with_identity(remembering.clone()).expect("agrees");
    let (name, secret) = (b"a network", [9; 32]);
    let private = libp2p_knock::Network::private(name, &secret).expect("a network");
    let (ours, denied) = (Network::private(name, &secret), parties[3].peer);
    let v2 = |config: Config| config.with_version(Version::V2).expect("can");
    vec![
        house(clock, config(), (Version::V3, Mode::Yamux), &[], parties).in_network(Network::OPEN, ours),
        house(
            clock,
            config()
                .with_network(private)
                .expect("can agree")
                .with_mode(Mode::Frames)
                .with_key_exchange(&[KeyExchange::X25519])
                .expect("one")
                .with_admission(move |peer, _| if *peer == denied { Err("not him".into()) } else { Ok(()) }),
            (Version::V3, Mode::Frames),
            &[(1, Version::V2, Mode::Yamux), (2, Version::V3, Mode::Yamux)],
            parties,
        )
        .in_network(ours, Network::OPEN)
        .denying(3),
        house(
            clock,
            Config::with_signer(Arc::new(SignsOnly(identity)))
                .expect("signs")
                .ragep2p_compatible(),
            (Version::V2, Mode::Frames),
            &[],
            parties,
        ),
        house(
            clock,
            v2(config()),
            (Version::V2, Mode::Yamux),
            &[(4, Version::V3, Mode::Frames)],
            parties,
        )
        .in_network(Network::OPEN, ours),
    ]
}

fn house(
    clock: &Arc<Clock>,
    config: Config,
    dialect: (Version, Mode),
    peers: &[(usize, Version, Mode)],
    parties: &[Party],
) -> House {
    let config = config
        .with_max_openings(NonZeroU32::new(OPENINGS as u32).expect("not zero"))
        .expect("not cloned yet");
    let config = peers.iter().fold(config, |config, (party, version, mode)| {
        config
            .with_peer(parties[*party].peer, *version, *mode)
            .expect("Ed25519")
    });
    let clock = clock.clone();
    House {
        doorkeeper: Doorkeeper::with_time(config, move || clock.now()),
        network: None,
        other_network: Network::OPEN,
        groups: vec![X25519MLKEM768, X25519],
        dialect,
        peers: peers.to_vec(),
        denied: None,
    }
}

impl House {
    fn in_network(self, network: Network, other_network: Network) -> Self {
        Self {
            network: Some(network),
            other_network,
            ..self
        }
    }

    fn denying(self, party: usize) -> Self {
        Self {
            denied: Some(party),
            groups: vec![X25519],
            ..self
        }
    }

    /// How the party with this key has to knock and to speak.
    pub fn dialect(&self, party: Option<usize>) -> (Version, Mode) {
        let of_its_own = self.peers.iter().find(|(peer, ..)| Some(*peer) == party);
        of_its_own.map_or(self.dialect, |(_, version, mode)| (*version, *mode))
    }

    /// Whether version 2 is the rule and has an exception.
    pub fn is_ambiguous(&self) -> bool {
        self.dialect.0 == Version::V2 && self.peers.iter().any(|(_, version, _)| *version == Version::V3)
    }

    pub fn speaks_v2(&self) -> bool {
        let versions = self.peers.iter().map(|(_, version, _)| *version);
        versions.chain([self.dialect.0]).any(|version| version == Version::V2)
    }
}
