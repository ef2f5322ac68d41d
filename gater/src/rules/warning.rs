//! What rules say that is hardly meant.

use super::Rules;
use super::key::PeerKey;
use super::sets::{Admission, Standing};
use super::snapshot::Snapshot;
use libp2p_identity::{PeerId, PublicKey};

/// Something that rules say and that is hardly meant. See [`Rules::warnings`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Members alone are let in, and no set has any: nothing is let in but what an allow rule
    /// names.
    #[error("`admit {}` with no member in any set: nothing is let in but what an allow rule names", .0.name())]
    NoMembers(Admission),
    /// What is accepted must come from an IP at which a member is known, and none is known
    /// anywhere.
    #[error("`admit known-addresses` with no IP of any member: nothing is accepted but what an allow rule names")]
    NoKnownAddresses,
    /// No key has this id, so no peer can be meant: it is random, or has a typing error.
    #[error("no key has the id {0}: expected the id of a peer")]
    NoKey(PeerId),
}

impl Rules {
    /// What the rules say that is hardly meant, in no order. A change that brings such a thing logs
    /// it, too, as one line at the level of warnings.
    ///
    /// Looks at every peer that is named: some 10 µs for each. A change looks at the form of every
    /// id it names, and into the keys of the first 1,024.
    pub fn warnings(&self) -> Vec<Warning> {
        let now = self.0.current.load();
        let mut warnings: Vec<Warning> = about_admission(&now).into_iter().collect();
        let conditional = now.with_conditions().filter_map(|rule| rule.peer);
        let blocked = now.blocked.iter().map(PeerKey::peer);
        let knocking = now.knock_peers.iter().map(|(key, ())| key.peer());
        let members = now.sets.values().flat_map(|set| set.peers.iter());
        let members = members.map(|(key, _)| key.peer());
        let named = conditional.chain(blocked).chain(knocking).chain(members);
        let mut odd: Vec<PeerId> = named.filter(|peer| !is_of_a_key(peer)).collect();
        odd.sort_unstable();
        odd.dedup();
        warnings.extend(odd.into_iter().map(Warning::NoKey));
        warnings
    }
}

/// Whether nothing can be admitted that should be.
pub(super) fn about_admission(now: &Snapshot) -> Option<Warning> {
    if now.admission == Admission::Everyone {
        return None;
    }
    let sets = || now.sets.values().filter(|set| set.standing != Standing::Blocked);
    if sets().all(|set| set.peers.is_empty()) {
        return Some(Warning::NoMembers(now.admission));
    }
    let unknown = now.admission == Admission::KnownAddresses && sets().all(|set| set.ips.is_empty());
    unknown.then_some(Warning::NoKnownAddresses)
}

/// Peers whose keys are looked into, of those that one change names.
const LOOKED_INTO: usize = 1024;

/// The peers that a change names.
#[derive(Default)]
pub(super) struct Named {
    looked_into: usize,
    odd: usize,
    first: Option<PeerId>,
}

impl Named {
    pub(super) fn look_at(&mut self, peer: &PeerId) {
        let is_right = match self.looked_into < LOOKED_INTO {
            true => is_of_a_key(peer),
            false => has_the_form_of_a_key(peer),
        };
        self.looked_into += 1;
        if !is_right {
            self.odd += 1;
            self.first.get_or_insert(*peer);
        }
    }

    /// Logs those that no key has.
    pub(super) fn log(&self) {
        if let Some(first) = &self.first {
            tracing::warn!(
                peers = self.odd,
                %first,
                "rules name ids that no key has: no peer can be meant"
            );
        }
    }
}

/// Whether a key can have this id, by its form alone: a hash of 32 bytes, or an Ed25519 or
/// Secp256k1 key as every libp2p encodes it. Other keys are too long to be an id.
fn has_the_form_of_a_key(peer: &PeerId) -> bool {
    /// Protobuf: the type, the length of the key.
    const ED25519: [u8; 4] = [8, 1, 18, 32];
    const SECP256K1: [u8; 4] = [8, 2, 18, 33];
    let hash = peer.as_ref();
    match (hash.code(), hash.digest()) {
        (0x12, digest) => digest.len() == 32,
        (0, [a, b, c, d, key @ ..]) if [*a, *b, *c, *d] == ED25519 => key.len() == 32,
        (0, [a, b, c, d, key @ ..]) if [*a, *b, *c, *d] == SECP256K1 => key.len() == 33 && matches!(key[0], 2 | 3),
        _ => false,
    }
}

/// The same, and an Ed25519 key is decoded: half of all values of 32 bytes are no key.
fn is_of_a_key(peer: &PeerId) -> bool {
    let digest = peer.as_ref().digest();
    has_the_form_of_a_key(peer) && (digest.len() != 36 || PublicKey::try_decode_protobuf(digest).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_identity::Keypair;

    #[test]
    fn an_id_that_no_key_has_is_told_from_one_that_a_key_has() {
        for _ in 0..100 {
            let key = Keypair::generate_ed25519().public();
            assert!(is_of_a_key(&key.to_peer_id()));
            assert!(!is_of_a_key(&PeerId::random()));
        }
        let of = |code: u8, digest: &[u8]| {
            let length = u8::try_from(digest.len()).expect("short");
            PeerId::from_bytes(&[&[code, length], digest].concat()).expect("an id")
        };
        assert!(is_of_a_key(&of(0x12, &[7; 32])), "some key may have it");
        assert!(!is_of_a_key(&of(0x12, &[7; 31])));
        let secp256k1 = |first: u8| [&[8, 2, 18, 33, first][..], &[7; 32]].concat();
        assert!(is_of_a_key(&of(0, &secp256k1(2))) && is_of_a_key(&of(0, &secp256k1(3))));
        assert!(!is_of_a_key(&of(0, &secp256k1(4))));
        // One byte of a key typed wrong: every second time no point of the curve is left.
        let ed25519 = Keypair::generate_ed25519().public().to_peer_id();
        let wrong = (0..=255).filter(|byte| {
            let mut digest = ed25519.as_ref().digest().to_vec();
            digest[20] = *byte;
            !is_of_a_key(&of(0, &digest))
        });
        assert!((64..192).contains(&wrong.count()));
    }
}
