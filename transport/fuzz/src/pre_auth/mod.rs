//! All that comes before a listener's first byte, against a model that knows what was sealed.
//!
//! The fuzzer does not have to guess keys: it says what is wrong with a knock (`scenario`), a dialer written for the
//! purpose makes it (`dialer`), one of four listeners hears it (`world`), and what becomes of it has to be what the
//! model says (`model`): answered only if everything is right and it was not answered before, and otherwise the one
//! refusal that the order of the checks gives, with no byte taken beyond it.

mod dialer;
mod model;
mod scenario;
mod world;

use arbitrary::{Arbitrary as _, Unstructured};
use dialer::{Addressee, Network, Pair, enclose, noise, seal_flight};
use libp2p_knock::Mode;
use libp2p_knock::internals::{HEAD, Verdict};
use model::{Inside, Past, Sent};
use scenario::{Claim, Ephemeral, Flight, Hello, Scenario, Sealed, Step, What};
use std::cell::RefCell;
use std::sync::atomic::Ordering;
use world::{ANOTHER, House, LISTENER, World};

/// When it all happens.
const NOW: u64 = 1_800_000_000_000;

thread_local!(static WORLD: RefCell<World> = RefCell::new(checked(World::new())));

/// Says what became of everything that was heard.
///
/// # Panics
///
/// If the listener does anything else than the model.
pub fn run(data: &[u8]) -> Vec<Verdict> {
    let Ok(scenario) = Scenario::arbitrary_take_rest(Unstructured::new(data)) else {
        return Vec::new();
    };
    WORLD.with_borrow_mut(|world| play(world, &scenario))
}

fn play(world: &mut World, scenario: &Scenario) -> Vec<Verdict> {
    let number = usize::from(scenario.house) % world.houses.len();
    let (mut wall, mut age) = (NOW, if scenario.young { 0 } else { 1_000_000_000 });
    // What it remembers begins at this run's time, not at the end of the last one's.
    world.clock.wall.store(wall, Ordering::Relaxed);
    world.clock.age.store(age, Ordering::Relaxed);
    world.houses[number].doorkeeper.forget();
    let mut past = Past::default();
    let mut verdicts = Vec::new();
    for step in &scenario.steps {
        age += u64::from(step.passes);
        wall = step.set.of(wall.saturating_add(step.passes.into()));
        world.clock.wall.store(wall, Ordering::Relaxed);
        world.clock.age.store(age, Ordering::Relaxed);

        let sent = send(world, number, &past, step, wall);
        let bytes = arrive(&sent.bytes, step);
        let expected = model::expected(world, number, &past, &sent, &bytes, (wall, age));
        let (house, remote) = (&world.houses[number], &world.remotes[usize::from(step.from) % 4]);
        let heard = house.doorkeeper.hear(remote, pieces(&bytes, &step.pieces));
        assert!(
            expected.contains(&heard),
            "{heard:?} where {expected:?} was to be expected of {step:?}"
        );
        past.on_heard(&sent, heard.0, wall, age);
        verdicts.push(heard.0);
    }
    verdicts
}

fn pieces<'a>(mut bytes: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::with_capacity(lengths.len() + 1);
    for length in lengths {
        let (piece, rest) = bytes.split_at(bytes.len().min((*length).into()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

/// What the way makes of it.
fn arrive(bytes: &[u8], step: &Step) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, change) in &step.flips {
        let length = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(usize::from(*at) % length) {
            *byte ^= change;
        }
    }
    bytes.truncate(step.cut.map_or(usize::MAX, usize::from));
    bytes.extend(std::iter::repeat_n(0x17, step.more.into()));
    bytes
}

fn send(world: &mut World, house: usize, past: &Past, step: &Step, wall: u64) -> Sent {
    match &step.what {
        What::Bytes(bytes) => Sent::bytes(bytes.clone()),
        What::V2 { dialer, for_another } => {
            let party = &world.parties[usize::from(*dialer) % (LISTENER + 1)];
            Sent::bytes(party.v2[usize::from(*for_another)].to_vec())
        }
        What::Again { which, nonce } => {
            let Some(sent) = past.sent.get(usize::from(*which) % past.sent.len().max(1)) else {
                return Sent::bytes(Vec::new());
            };
            match (nonce, &sent.inside) {
                (Some(nonce), Some(inside)) => inside.clone().enclosed(*nonce),
                _ => sent.clone(),
            }
        }
        What::Sealed(sealed) => seal(world, house, sealed, wall),
    }
}

fn seal(world: &mut World, house: usize, sealed: &Sealed, wall: u64) -> Sent {
    let World {
        parties,
        ephemerals,
        agreed,
        houses,
        ..
    } = world;
    let house: &House = &houses[house];
    let dialer = usize::from(sealed.dialer) % (LISTENER + 1);
    let own = &parties[dialer];
    let network = |another: bool| match house.network {
        Some(network) if !another => network,
        _ => house.other_network,
    };
    let callee = |another: bool| -> Addressee { parties[if another { ANOTHER } else { LISTENER }].addressee };

    let flight = flight(&sealed.flight);
    let mut payload = [0; 80];
    payload[..32].copy_from_slice(&claimed(parties, dialer, &sealed.key));
    payload[32..40].copy_from_slice(&sealed.time.of(wall).to_be_bytes());
    let mode = match house.dialect(Some(dialer)).1 {
        Mode::Frames => 2,
        _ => 1,
    };
    payload[40] = sealed.mode.unwrap_or(mode);
    payload[41] = sealed.flags;
    let length = sealed.length.unwrap_or(flight.len() as u16);
    payload[42..44].copy_from_slice(&length.to_be_bytes());
    if let Some((at, value)) = sealed.reserved {
        payload[44 + usize::from(at % 4)] = value;
    }
    payload[48..].fill(sealed.flight_key);

    let (ephemeral, small) = match sealed.ephemeral {
        Ephemeral::Of(n) => (&ephemerals[usize::from(n) % ephemerals.len()], None),
        Ephemeral::Small(n) => (&ephemerals[0], Some(small_order(n))),
    };
    let (to, of) = (callee(sealed.noise_for_another), network(sealed.noise_of_another));
    let right = noise(agreed, &own.pair, ephemeral, &to, &of, &payload);
    let mut message = right.clone();
    if let Some(small) = small {
        message[..32].copy_from_slice(&small);
    }
    for (at, change) in &sealed.flips {
        message[usize::from(*at) % right.len()] ^= change;
    }
    let noise_right = message == right && !sealed.noise_for_another && !(sealed.noise_of_another);
    let flight_key = [sealed.flight_key ^ u8::from(sealed.other_flight_key); 32];
    let inside = Inside {
        listener: callee(sealed.box_for_another).ed25519,
        network: network(sealed.box_of_another),
        box_right: !sealed.box_for_another && !sealed.box_of_another,
        noise_right,
        message,
        payload,
        dialer,
        sealed_flight: seal_flight(&flight_key, &flight),
        flight_key_right: !sealed.other_flight_key,
        flight,
    };
    let [a, b] = sealed.nonce;
    inside.enclosed([a, b, b, b, b, b, b, b, b, b, b, b])
}

fn claimed(parties: &[world::Party], dialer: usize, claim: &Claim) -> [u8; 32] {
    let own = parties[dialer].addressee.ed25519;
    match claim {
        Claim::Own => own,
        Claim::Negative => {
            let mut negative = own;
            negative[31] ^= 0x80;
            negative
        }
        Claim::Other(party) => parties[usize::from(*party) % parties.len()].addressee.ed25519,
        Claim::Small(n) => {
            let points = curve25519_dalek::constants::EIGHT_TORSION;
            points[usize::from(*n) % points.len()].compress().to_bytes()
        }
        Claim::Unreduced(n) => {
            // p = 2^255 - 19, and 19 numbers from there on.
            let mut unreduced = [0xff; 32];
            unreduced[0] = 0xed + n % 19;
            unreduced[31] = 0x7f | (n & 0x80);
            unreduced
        }
        Claim::Any(key) => *key,
    }
}

fn small_order(n: u8) -> [u8; 32] {
    let points = curve25519_dalek::constants::EIGHT_TORSION;
    points[usize::from(n) % points.len()].to_montgomery().to_bytes()
}

fn flight(flight: &Flight) -> Vec<u8> {
    match flight {
        Flight::Hello(hello) => client_hello(hello),
        Flight::Any(bytes) => bytes.clone(),
        Flight::Long(length) => vec![0x16; usize::from(*length) % 5000],
    }
}

/// The least that a client may say, and some of what is wrong with it.
fn client_hello(hello: &Hello) -> Vec<u8> {
    let bit = |bits: u8, n: u8| bits & 1 << n != 0;
    let groups = |bits: u8| {
        let mut groups = vec![0x001d_u16];
        groups.truncate(usize::from(!bit(bits, 2)));
        if bit(bits, 1) {
            groups.insert(0, 0x0017);
        }
        if bit(bits, 0) {
            groups.insert(0, 0x11ec);
        }
        groups
    };
    let u16s = |values: &[u16]| -> Vec<u8> { values.iter().flat_map(|value| value.to_be_bytes()).collect() };
    let list = |content: Vec<u8>| [&(content.len() as u16).to_be_bytes()[..], &content].concat();
    let extension = |kind: u16, content: Vec<u8>| [&kind.to_be_bytes()[..], &list(content)].concat();

    let mut extensions = extension(10, list(u16s(&groups(hello.groups))));
    let shares = groups(hello.shares)
        .iter()
        .flat_map(|group| extension(*group, vec![7; 32]))
        .collect();
    extensions.extend(extension(51, list(shares)));
    if !bit(hello.versions, 2) {
        let mut versions = vec![0x0304];
        versions.truncate(usize::from(!bit(hello.versions, 0)));
        if bit(hello.versions, 1) {
            versions.push(0x0303);
        }
        let versions = u16s(&versions);
        extensions.extend(extension(43, [vec![versions.len() as u8], versions].concat()));
    }
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.push(0); // no session
    body.extend(list(vec![0x13, 0x01]));
    body.extend([1, 0]); // no compression
    body.extend(list(extensions));
    let message = [vec![1, 0], list(body)].concat();
    let mut flight = [vec![22, 3, 1], list(message)].concat();
    for (at, change) in &hello.flips {
        let length = flight.len();
        flight[usize::from(*at) % length] ^= change;
    }
    flight
}

/// The dialer here makes what the transport makes.
fn checked(mut world: World) -> World {
    use libp2p_knock::internals::{Callee, Fresh, StaticKey, local, seal};
    let callee = Callee::of_peer(&world.parties[LISTENER].peer).expect("Ed25519");
    let networks = [
        (libp2p_knock::Network::open(), Network::OPEN),
        (
            libp2p_knock::Network::private(b"n", &[1; 32]).expect("a network"),
            Network::private(b"n", &[1; 32]),
        ),
    ];
    for (theirs, ours) in networks {
        let keypair = libp2p_identity::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let own = StaticKey::new(local(&keypair).expect("Ed25519")).expect("agrees");
        let fresh = Fresh {
            nonce: [5; 12],
            ephemeral: [6; 32],
            flight_key: [7; 32],
        };
        let knock = seal(&own, &callee, &theirs, Mode::Frames, NOW, fresh, b"flight").expect("seals");

        let mut payload = world.parties[0].addressee.ed25519.to_vec();
        payload.extend(NOW.to_be_bytes());
        payload.extend([2, 0, 0, 6, 0, 0, 0, 0]);
        payload.extend([7; 32]);
        let World { parties, agreed, .. } = &mut world;
        let (to, ephemeral) = (parties[LISTENER].addressee, Pair::new(&[6; 32]));
        let message = noise(agreed, &parties[0].pair, &ephemeral, &to, &ours, &payload);
        let head = enclose(&ours, &to.ed25519, [5; 12], &message);
        assert_eq!(head, knock[..HEAD]);
        assert_eq!(seal_flight(&[7; 32], b"flight"), knock[HEAD..]);
    }
    world
}
