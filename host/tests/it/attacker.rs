//! A peer that has a stream and writes what it likes.

use crate::common::{keypair, knock, peer};
use libp2p_core::transport::{DialOpts, PortUse};
use libp2p_core::{Endpoint, Multiaddr, Transport as _};
use libp2p_knock::{Authenticated, Mode, TlsStream};
use libp2p_tcp::tokio::{TcpStream, Transport};
use sha2::{Digest as _, Sha256};

pub(crate) const VICTIM: u8 = 1;
pub(crate) const HONEST: u8 = 2;
pub(crate) const HOSTILE: u8 = 3;

/// As the peer of key `seed`.
pub(crate) async fn dial(seed: u8, address: &Multiaddr) -> Result<TlsStream<TcpStream>, libp2p_knock::Failure> {
    let knock = knock(seed).with_mode(Mode::Frames);
    let mut transport = Authenticated::new(Transport::default(), knock);
    let address = format!("{address}/p2p/{}", peer(VICTIM)).parse().unwrap();
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let (_, connection) = transport.dial(address, opts).unwrap().await?;
    Ok(connection)
}

pub(crate) fn id(name: &str) -> [u8; 32] {
    id_of(HOSTILE, name)
}

/// Of a stream with the peer of key `seed`.
pub(crate) fn id_of(seed: u8, name: &str) -> [u8; 32] {
    Sha256::digest([&keys(seed)[..], name.as_bytes()].concat()).into()
}

/// The victim's key and that of `seed`, the larger one first.
fn keys(seed: u8) -> Vec<u8> {
    let raw = |seed| keypair(seed).public().try_into_ed25519().unwrap().to_bytes();
    let (a, b) = (raw(VICTIM), raw(seed));
    [a.max(b), a.min(b)].concat()
}

/// The opening of so many streams.
pub(crate) fn opens(count: u32) -> Vec<u8> {
    let keys = keys(HOSTILE);
    let open = |n: u32| {
        let name = n.to_string();
        let id = Sha256::digest([&keys[..], name.as_bytes()].concat()).into();
        [header(1, id, u32::try_from(name.len()).unwrap()), name.into_bytes()].concat()
    };
    (0..count).flat_map(open).collect()
}

pub(crate) fn header(code: u8, id: [u8; 32], length: u32) -> Vec<u8> {
    [&[code][..], &id, &length.to_be_bytes()].concat()
}

pub(crate) fn open(name: &str) -> Vec<u8> {
    let mut frame = header(1, id(name), u32::try_from(name.len()).unwrap());
    frame.extend_from_slice(name.as_bytes());
    frame
}

pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    let mut frame = header(3, id("x"), u32::try_from(payload.len()).unwrap());
    frame.extend_from_slice(payload);
    frame
}
