//! What a listener has to make of what it hears, from what is known to be in it.

use super::dialer::{Network, enclose};
use super::world::{House, LISTENER, OPENINGS, World};
use libp2p_identity::{PeerId, PublicKey, ed25519};
use libp2p_knock::internals::{HEAD, TAG, Verdict, check_hello};
use libp2p_knock::{Mode, Refusal, Version, knock::v2};

const WINDOW: u64 = 120_000;

/// As it left its sender.
#[derive(Clone)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub inside: Option<Inside>,
}

/// A sealed knock, by its parts.
#[derive(Clone)]
pub struct Inside {
    pub listener: [u8; 32],
    pub network: Network,
    pub box_right: bool,
    pub noise_right: bool,
    pub message: Vec<u8>,
    pub payload: [u8; 80],
    pub dialer: usize,
    pub sealed_flight: Vec<u8>,
    pub flight_key_right: bool,
    pub flight: Vec<u8>,
}

impl Sent {
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, inside: None }
    }
}

impl Inside {
    pub fn enclosed(self, nonce: [u8; 12]) -> Sent {
        let mut bytes = enclose(&self.network, &self.listener, nonce, &self.message);
        bytes.extend_from_slice(&self.sealed_flight);
        Sent {
            bytes,
            inside: Some(self),
        }
    }

    fn time(&self) -> u64 {
        u64::from_be_bytes(self.payload[32..40].try_into().expect("8 bytes"))
    }
}

/// What has been heard.
#[derive(Default)]
pub struct Past {
    pub sent: Vec<Sent>,
    /// Ephemeral keys that were answered, and the times in their knocks.
    answered: Vec<(Vec<u8>, u64)>,
    /// Knocks whose box opened, and those that key work was done for.
    boxes: u64,
    worked: u64,
    /// The latest that the wall clock has shown.
    latest: u64,
    first_age: Option<u64>,
}

impl Past {
    pub fn on_heard(&mut self, sent: &Sent, verdict: Verdict, wall: u64, age: u64) {
        self.latest = self.latest.max(wall);
        let first = *self.first_age.get_or_insert(age);
        let v2 = matches!(verdict, Verdict::Answered(_)) && sent.inside.is_none();
        if let Some(inside) = &sent.inside
            && inside.box_right
        {
            self.boxes += 1;
            use Refusal::{Box, Budget, Replayed};
            let spared = matches!(verdict, Verdict::Refused(Box | Budget | Replayed));
            self.worked += u64::from(!spared);
            if matches!(verdict, Verdict::Answered(_)) {
                self.answered.push((inside.message[..32].to_vec(), inside.time()));
            }
        } else if v2 {
            self.boxes += 1;
        }
        let earned = OPENINGS * (age - first) / 1000 + 1;
        assert!(self.worked <= OPENINGS + earned, "more key work than the budget allows");
        self.sent.push(sent.clone());
    }

    /// The time that the floor may have risen to.
    fn highest_floor(&self, wall: u64) -> u64 {
        let latest = self.latest.max(wall);
        let times = self.answered.iter().map(|(_, time)| *time);
        times
            .filter(|time| time.saturating_add(WINDOW) < latest)
            .max()
            .unwrap_or(0)
    }
}

/// The verdicts that may be, each with the number of bytes taken. One of them, unless it depends on budgets or on what
/// was forgotten, which the model does not know exactly.
pub fn expected(
    world: &mut World,
    house: usize,
    past: &Past,
    sent: &Sent,
    bytes: &[u8],
    (wall, age): (u64, u64),
) -> Vec<(Verdict, usize)> {
    let refused = |refusal, taken| (Verdict::Refused(refusal), taken);
    let mut waiting = vec![(Verdict::Waiting, bytes.len())];
    let mut spent = Vec::new();
    if world.houses[house].speaks_v2() {
        let Some((&[version], claimed)) = bytes
            .split_first_chunk()
            .and_then(|(v, rest)| Some((v, rest.get(..32)?)))
        else {
            return waiting;
        };
        if version == 2 && may_v2(world, house, claimed) {
            let Some(verdicts) = v2(world, house, past, bytes) else {
                return waiting;
            };
            let verdicts: Vec<_> = verdicts.into_iter().map(|verdict| (verdict, v2::SIZE)).collect();
            // Where version 2 is the rule, a sealed knock begins like any v2 knock once in 256 times.
            let forged = refused(Refusal::Signature, v2::SIZE);
            if !(world.houses[house].is_ambiguous() && verdicts.contains(&forged)) {
                return verdicts;
            }
            spent.extend(verdicts.into_iter().filter(|verdict| *verdict != forged));
        }
    }
    if bytes.len() < HEAD {
        waiting.extend(spent);
        return waiting;
    }
    if world.houses[house].network.is_none() {
        return vec![refused(Refusal::Version(bytes[0]), HEAD)];
    }
    let intact = |inside: &&Inside| inside.box_right && bytes[..HEAD] == sent.bytes[..HEAD];
    let Some(inside) = sent.inside.as_ref().filter(intact) else {
        spent.push(refused(Refusal::Box, HEAD));
        return spent;
    };

    let (verdict, taken) = unless_spent(world, house, inside, bytes, wall, age);
    let mut may = spent;
    let mut before = past
        .answered
        .iter()
        .filter(|(key, _)| inside.message.starts_with(key))
        .map(|(_, time)| *time)
        .peekable();
    if before.peek().is_none() {
        may.push((verdict, taken));
    } else {
        may.push(refused(Refusal::Replayed, HEAD));
        // Once and never again. A dialer that uses a key a second time, which nobody else can, makes another knock of it:
        // that one may be taken when the first is forgotten.
        let (mut kept, mut same) = (false, false);
        for time in before {
            kept |= time.saturating_add(WINDOW) >= past.latest.max(wall);
            same |= time == inside.time();
        }
        if !kept && !(same && matches!(verdict, Verdict::Answered(_))) {
            may.push((verdict, taken));
        }
    }
    let in_time = inside.time().abs_diff(wall) <= WINDOW;
    if inside.noise_right && in_time && inside.time() <= past.highest_floor(wall) {
        may.push(refused(Refusal::Floor, HEAD));
    }
    // What is below half of a second's worth is shared out.
    if past.boxes >= OPENINGS / 2 {
        may.push(refused(Refusal::Budget, HEAD));
        if matches!(verdict, Verdict::Answered(_)) {
            may.push(refused(Refusal::Budget, taken));
        }
    }
    may
}

/// Whether a v2 knock may come from this key.
fn may_v2(world: &mut World, house: usize, claimed: &[u8]) -> bool {
    let key = claimed.try_into().expect("32 bytes");
    let party = world.parties.iter().position(|party| party.addressee.ed25519 == key);
    // Off the curve is found out with the signature.
    let usable = world.form(&key).is_some() || (is_reduced(&key) && !is_point(&key));
    usable && world.houses[house].dialect(party).0 == Version::V2
}

fn is_point(key: &[u8; 32]) -> bool {
    curve25519_dalek::edwards::CompressedEdwardsY(*key)
        .decompress()
        .is_some()
}

/// Whether y < 2^255 - 19.
fn is_reduced(key: &[u8; 32]) -> bool {
    let mut y = *key;
    y[31] &= 0x7f;
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    y.iter().rev().lt(p.iter().rev())
}

fn v2(world: &World, house: usize, past: &Past, bytes: &[u8]) -> Option<Vec<Verdict>> {
    let knock = bytes.get(..v2::SIZE)?;
    let (house, listener) = (&world.houses[house], &world.parties[LISTENER]);
    if knock[1..33] == listener.addressee.ed25519 {
        return Some(vec![Verdict::Refused(Refusal::SelfDial)]);
    }
    let from = world.parties.iter().position(|party| party.v2[0] == knock);
    let verdict = match from {
        None => Verdict::Refused(Refusal::Signature),
        from if from == house.denied => Verdict::Denied,
        Some(from) => Verdict::Answered(world.parties[from].peer),
    };
    let mut may = vec![verdict];
    // The shortest of the limits behind it are four handshakes for a pair, and five signatures for a network.
    if past.sent.len() >= 4 {
        may.push(Verdict::Refused(Refusal::Budget));
    }
    Some(may)
}

/// What becomes of a sealed knock whose box is right, if it was not answered before and there is budget.
fn unless_spent(
    world: &mut World,
    house: usize,
    inside: &Inside,
    bytes: &[u8],
    wall: u64,
    age: u64,
) -> (Verdict, usize) {
    match head(world, house, inside, wall, age) {
        Err(verdict) => (verdict, HEAD),
        Ok(peer) => {
            let length = usize::from(u16::from_be_bytes([inside.payload[42], inside.payload[43]]));
            let Some(sealed) = bytes.get(HEAD..HEAD + length + TAG) else {
                return (Verdict::Waiting, bytes.len());
            };
            let verdict = match flight(&world.houses[house], inside, sealed) {
                Ok(()) => Verdict::Answered(peer),
                Err(refusal) => Verdict::Refused(refusal),
            };
            (verdict, HEAD + length + TAG)
        }
    }
}

fn head(world: &mut World, house: usize, inside: &Inside, wall: u64, age: u64) -> Result<PeerId, Verdict> {
    let refuse = |refusal| Err(Verdict::Refused(refusal));
    let payload = &inside.payload;
    if !inside.noise_right {
        return refuse(Refusal::Noise);
    }
    if payload[41] != 0 || payload[44..48].iter().any(|byte| *byte != 0) {
        return refuse(Refusal::Reserved);
    }
    let mode = match payload[40] {
        1 => Mode::Yamux,
        2 => Mode::Frames,
        mode => return refuse(Refusal::Mode(mode)),
    };
    let length = u16::from_be_bytes([payload[42], payload[43]]);
    if !(1..=4096).contains(&length) {
        return refuse(Refusal::FlightLength(length));
    }
    if inside.time().abs_diff(wall) > WINDOW {
        return refuse(Refusal::Time);
    }
    if inside.time() <= wall.saturating_sub(age) {
        return refuse(Refusal::Floor);
    }
    let key: [u8; 32] = payload[..32].try_into().expect("32 bytes");
    if world.form(&key) != Some(world.parties[inside.dialer].addressee.x25519) {
        return refuse(Refusal::Key);
    }
    if key == world.parties[LISTENER].addressee.ed25519 {
        return refuse(Refusal::SelfDial);
    }
    let party = world.parties.iter().position(|party| party.addressee.ed25519 == key);
    let house = &world.houses[house];
    if house.dialect(party) != (Version::V3, mode) {
        return refuse(Refusal::NotConfigured);
    }
    match party {
        Some(party) if Some(party) == house.denied => Err(Verdict::Denied),
        Some(party) => Ok(world.parties[party].peer),
        None => {
            let key = ed25519::PublicKey::try_from_bytes(&key).expect("has a form");
            Ok(PublicKey::from(key).to_peer_id())
        }
    }
}

fn flight(house: &House, inside: &Inside, sealed: &[u8]) -> Result<(), Refusal> {
    if sealed != inside.sealed_flight || !inside.flight_key_right {
        return Err(Refusal::Flight);
    }
    // Has a fuzzer of its own.
    check_hello(&inside.flight, &house.groups)
}
