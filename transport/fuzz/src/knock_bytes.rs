//! Bytes of a stranger who knows nothing, in any pieces, at listeners that hear sealed knocks only, v2 from one peer, v2
//! from everybody, and v2 from everybody but one.

use libp2p_core::Multiaddr;
use libp2p_identity::Keypair;
use libp2p_knock::internals::{Doorkeeper, Verdict};
use libp2p_knock::{Config, Mode, Version};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

struct World {
    doorkeepers: Vec<Doorkeeper>,
    /// What has passed in seconds.
    time: Arc<AtomicU64>,
    remote: Multiaddr,
}

impl World {
    fn new() -> Self {
        let keypair = |seed: u8| Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        let config = || Config::new(&keypair(1)).expect("Ed25519");
        let one_old = |config: Config| {
            let peer = keypair(2).public().to_peer_id();
            config.with_peer(peer, Version::V2, Mode::Frames).expect("Ed25519")
        };
        let all_old = |config: Config| config.with_version(Version::V2).expect("can");
        let one_new = |config: Config| {
            let peer = keypair(3).public().to_peer_id();
            config.with_peer(peer, Version::V3, Mode::Yamux).expect("Ed25519")
        };
        let time = Arc::<AtomicU64>::default();
        let at = |config| {
            let time = time.clone();
            Doorkeeper::with_time(config, move || {
                let passed = Duration::from_secs(time.load(Ordering::Relaxed));
                (SystemTime::UNIX_EPOCH + passed, passed)
            })
        };
        Self {
            doorkeepers: [
                config(),
                one_old(config()),
                all_old(config()),
                one_new(all_old(config())),
            ]
            .map(at)
            .into(),
            time,
            remote: "/ip4/192.0.2.1/tcp/1".parse().expect("an address"),
        }
    }

    /// An hour after what was heard before, when every budget is full again.
    fn hear(&self, doorkeeper: usize, pieces: &[&[u8]]) -> (Verdict, usize) {
        self.time.fetch_add(3600, Ordering::Relaxed);
        self.doorkeepers[doorkeeper].hear(&self.remote, pieces.iter().copied())
    }
}

thread_local!(static WORLD: RefCell<World> = RefCell::new(World::new()));

/// The first byte says who hears it, and how many of the next ones are lengths of pieces.
///
/// # Panics
///
/// If anybody is answered, too much is taken, or the pieces make a difference.
pub fn run(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let (lengths, bytes) = rest.split_at(rest.len().min(usize::from(first >> 2)));
    let mut pieces = Vec::new();
    let mut left = bytes;
    for length in lengths {
        let (piece, rest) = left.split_at(left.len().min((*length).into()));
        pieces.push(piece);
        left = rest;
    }
    pieces.push(left);

    WORLD.with_borrow(|world| {
        let doorkeeper = usize::from(first) % world.doorkeepers.len();
        let whole = world.hear(doorkeeper, &[bytes]);
        assert_eq!(whole, world.hear(doorkeeper, &pieces), "in {} pieces", pieces.len());
        match whole {
            (Verdict::Refused(_), taken) => assert!(taken == 97 || taken == 204, "{taken} bytes"),
            (Verdict::Waiting, taken) => assert!(taken == bytes.len() && taken < 204, "{taken} bytes"),
            other => panic!("{other:?} from somebody who holds no key"),
        }
    });
}
