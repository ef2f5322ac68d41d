use super::*;
use proptest::prelude::*;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs as provider};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeTlsData};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use std::sync::Arc;

const X25519: u16 = 0x001d;
const P256: u16 = 0x0017;
const X25519MLKEM768: u16 = 0x11ec;
const OURS: [u16; 2] = [X25519MLKEM768, X25519];

/// What rustls says first.
fn rustls_hello(groups: &[&'static dyn SupportedKxGroup], versions: &[&'static SupportedProtocolVersion]) -> Vec<u8> {
    let provider = CryptoProvider {
        kx_groups: groups.to_vec(),
        ..provider::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = false;
    let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    let mut client = UnbufferedClientConnection::new(Arc::new(config), name).expect("a client");
    let mut flight = vec![0; 8192];
    let Ok(ConnectionState::EncodeTlsData(mut state)) = client.process_tls_records(&mut []).state else {
        panic!("a client speaks first");
    };
    let n = EncodeTlsData::encode(&mut state, &mut flight).expect("fits");
    flight.truncate(n);
    flight
}

fn list8(content: &[u8]) -> Vec<u8> {
    [&[content.len() as u8], content].concat()
}

fn list16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn u16s_of(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), list16(content)].concat()
}

fn versions(versions: &[u16]) -> Vec<u8> {
    extension(SUPPORTED_VERSIONS, &list8(&u16s_of(versions)))
}

fn groups(groups: &[u16]) -> Vec<u8> {
    extension(SUPPORTED_GROUPS, &list16(&u16s_of(groups)))
}

fn shares(groups: &[u16]) -> Vec<u8> {
    let shares: Vec<u8> = groups.iter().flat_map(|group| extension(*group, &[7; 32])).collect();
    extension(KEY_SHARE, &list16(&shares))
}

fn record(content: &[u8]) -> Vec<u8> {
    [vec![RECORD_HANDSHAKE, 3, 1], list16(content)].concat()
}

fn message(body: &[u8]) -> Vec<u8> {
    [vec![CLIENT_HELLO, 0], list16(body)].concat()
}

fn body(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend(list8(&[8; 32]));
    body.extend(list16(&[0x13, 0x01]));
    body.extend(list8(&[0]));
    body.extend(list16(&extensions.concat()));
    body
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    record(&message(&body(extensions)))
}

/// The least that passes, with X25519.
pub(in crate::knock::v3) fn minimal() -> Vec<u8> {
    hello(&[versions(&[TLS13]), groups(&[X25519]), shares(&[X25519])])
}

#[test]
fn what_rustls_says_passes() {
    let both = [provider::kx_group::X25519MLKEM768, provider::kx_group::X25519];
    let hybrid = rustls_hello(&both, &[&version::TLS13]);
    assert_eq!(check(&hybrid, &OURS), Ok(()));
    assert!((1300..1500).contains(&hybrid.len()), "{}", hybrid.len());
    let classic = rustls_hello(&both[1..], &[&version::TLS13]);
    assert_eq!(check(&classic, &OURS), Ok(()));
    assert!((150..250).contains(&classic.len()), "{}", classic.len());
    // Whoever offers TLS 1.2 beside it speaks 1.3 with us.
    let either = rustls_hello(&both, &[&version::TLS12, &version::TLS13]);
    assert_eq!(check(&either, &OURS), Ok(()));
}

#[test]
fn what_would_be_asked_again_is_refused() {
    let before = [provider::kx_group::SECP256R1, provider::kx_group::X25519];
    let flight = rustls_hello(&before, &[&version::TLS13]);
    assert_eq!(check(&flight, &OURS), Err(Refusal::KeyShare));
    assert_eq!(check(&flight, &[P256]), Ok(()));
    // rustls offers the share of X25519 beside that of the hybrid: so a listener without the hybrid need not ask.
    let hybrid = rustls_hello(
        &[provider::kx_group::X25519MLKEM768, provider::kx_group::X25519],
        &[&version::TLS13],
    );
    assert_eq!(check(&hybrid, &[X25519]), Ok(()));

    let with = |ours: &[u16], shared: &[u16]| check(&hello(&[versions(&[TLS13]), groups(ours), shares(shared)]), &OURS);
    assert_eq!(with(&[X25519, X25519MLKEM768], &[X25519]), Ok(()));
    assert_eq!(with(&[P256, X25519], &[P256, X25519]), Ok(()));
    assert_eq!(with(&[X25519MLKEM768, X25519], &[X25519]), Err(Refusal::KeyShare));
    assert_eq!(with(&[P256], &[P256]), Err(Refusal::KeyShare));
    assert_eq!(with(&[P256], &[X25519]), Err(Refusal::KeyShare));
    assert_eq!(check(&hello(&[versions(&[TLS13])]), &OURS), Err(Refusal::KeyShare));
}

#[test]
fn without_tls_1_3_it_is_refused() {
    let classic = [provider::kx_group::X25519];
    let flight = rustls_hello(&classic, &[&version::TLS12]);
    assert_eq!(check(&flight, &OURS), Err(Refusal::TlsVersion));
    let old = hello(&[versions(&[0x0303]), groups(&[X25519]), shares(&[X25519])]);
    assert_eq!(check(&old, &OURS), Err(Refusal::TlsVersion));
    let none = hello(&[groups(&[X25519]), shares(&[X25519])]);
    assert_eq!(check(&none, &OURS), Err(Refusal::TlsVersion));
    let mut bare = body(&[]);
    bare.truncate(bare.len() - 2);
    assert_eq!(check(&record(&message(&bare)), &OURS), Err(Refusal::TlsVersion));
}

#[test]
fn exactly_one_record_with_exactly_one_hello() {
    let good = body(&[versions(&[TLS13]), groups(&[X25519]), shares(&[X25519])]);
    assert_eq!(check(&record(&message(&good)), &OURS), Ok(()));
    let one = minimal();
    let half = message(&good);
    let (first, second) = half.split_at(20);
    let longer_body = [&good[..], &[0]].concat();
    for wrong in [
        [&one[..], &one].concat(),
        [&one[..], &[0]].concat(),
        [&one[..], &[20, 3, 3, 0, 1, 1]].concat(),
        [record(first), record(second)].concat(),
        record(&[message(&good), message(&good)].concat()),
        record(&[&message(&good)[..], &[0]].concat()),
        record(&message(&longer_body)),
        record(&[]),
    ] {
        assert_eq!(check(&wrong, &OURS), Err(Refusal::Hello));
    }
    for (at, value) in [(0, 23), (0, 21), (1, 2), (5, 2), (6, 1)] {
        let mut wrong = one.clone();
        wrong[at] = value;
        assert_eq!(check(&wrong, &OURS), Err(Refusal::Hello), "byte {at} = {value}");
    }
    // As rustls: any 3.x in front of a record.
    for minor in [0, 1, 3, 9] {
        let mut lenient = one.clone();
        lenient[2] = minor;
        assert_eq!(check(&lenient, &OURS), Ok(()));
    }
}

#[test]
fn what_stands_in_front_of_the_extensions_has_its_form() {
    let with = |session: &[u8], suites: &[u8], compressions: &[u8]| {
        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.extend([list8(session), list16(suites), list8(compressions)].concat());
        body.extend(list16(
            &[versions(&[TLS13]), groups(&[X25519]), shares(&[X25519])].concat(),
        ));
        check(&record(&message(&body)), &OURS)
    };
    assert_eq!(with(&[8; 32], &[0x13, 1], &[0]), Ok(()));
    assert_eq!(with(&[], &[0x13, 1, 0x13, 2], &[1, 0]), Ok(()));
    assert_eq!(with(&[8; 33], &[0x13, 1], &[0]), Err(Refusal::Hello));
    assert_eq!(with(&[8; 32], &[], &[0]), Err(Refusal::Hello));
    assert_eq!(with(&[8; 32], &[0x13, 1, 0x13], &[0]), Err(Refusal::Hello));
    assert_eq!(with(&[8; 32], &[0x13, 1], &[]), Err(Refusal::Hello));
}

#[test]
fn two_of_a_kind_and_ragged_lists_are_refused() {
    let (v, g, s) = (versions(&[TLS13]), groups(&[X25519]), shares(&[X25519]));
    for twice in [&v, &g, &s] {
        let flight = hello(&[v.clone(), g.clone(), s.clone(), twice.clone()]);
        assert_eq!(check(&flight, &OURS), Err(Refusal::Hello));
    }
    for ragged in [
        extension(SUPPORTED_VERSIONS, &list8(&[3, 4, 3])),
        extension(SUPPORTED_GROUPS, &list16(&[0])),
        extension(SUPPORTED_GROUPS, &list16(&[])),
        extension(SUPPORTED_GROUPS, &[list16(&[0, 29]), vec![0]].concat()),
        extension(KEY_SHARE, &list16(&[0, 29, 0])),
        extension(KEY_SHARE, &list16(&[0, 29, 0, 9, 1])),
    ] {
        assert_eq!(check(&hello(&[ragged]), &OURS), Err(Refusal::Hello));
    }
}

#[test]
fn no_prefix_passes_and_no_changed_byte_panics() {
    let flight = rustls_hello(
        &[provider::kx_group::X25519MLKEM768, provider::kx_group::X25519],
        &[&version::TLS13],
    );
    for length in 0..flight.len() {
        assert_eq!(check(&flight[..length], &OURS), Err(Refusal::Hello));
    }
    for at in 0..flight.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = flight.clone();
            changed[at] = value;
            let _ = check(&changed, &OURS);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(check(&bytes, &OURS), Err(Refusal::Hello));
        let _ = check(&record(&message(&bytes)), &OURS);
        let _ = check(&hello(&[bytes]), &OURS);
    }

    #[test]
    fn several_changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut flight = minimal();
        for (at, value) in changes {
            let at = at.index(flight.len());
            flight[at] = value;
        }
        let _ = check(&flight, &OURS);
    }
}
