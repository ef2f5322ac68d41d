//! Every rule is a line, and every line a rule or an error.

use super::super::cidr::Cidr;
use super::*;
use crate::context::Direction;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use proptest::prelude::*;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, UNIX_EPOCH};

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ]
}

fn network() -> impl Strategy<Value = Cidr> {
    (ip(), 0..=128_u8).prop_map(|(ip, length)| {
        let length = if ip.is_ipv4() { length % 33 } else { length };
        Cidr::around(ip, length).expect("in range")
    })
}

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(|key| {
        let bytes = [&[0, 36, 8, 1, 18, 32][..], &key].concat();
        PeerId::from_bytes(&bytes).expect("the form of an inline key")
    })
}

fn listener() -> impl Strategy<Value = Multiaddr> {
    (ip(), any::<u16>()).prop_map(|(ip, port)| Multiaddr::from(ip).with(libp2p_core::multiaddr::Protocol::Tcp(port)))
}

fn rule() -> impl Strategy<Value = Rule> {
    use prop::option::of;
    let direction = prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound)];
    let transport = prop::sample::select(TransportKind::ALL.to_vec());
    let ports = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let about = (
        of(peer()),
        of(network()),
        of(ports),
        of(direction),
        of(transport),
        of(listener()),
    );
    (any::<bool>(), about, of(any::<u64>()), of(any::<String>())).prop_map(|(allow, about, until, note)| {
        let mut rule = if allow { Rule::allow() } else { Rule::block() };
        (
            rule.peer,
            rule.network,
            rule.ports,
            rule.direction,
            rule.transport,
            rule.listener,
        ) = about;
        if let Some(until) = until {
            rule = rule.until(UNIX_EPOCH + Duration::from_secs(until >> 2));
        }
        match note {
            Some(note) => rule.note(note),
            None => rule,
        }
    })
}

proptest! {
    #[test]
    fn every_rule_comes_back_from_its_line(rule in rule()) {
        let line = rule.to_string();
        prop_assert!(!line.contains(char::is_control), "{line:?}");
        let back: Rule = line.parse().map_err(|error| TestCaseError::fail(format!("{line}: {error}")))?;
        prop_assert_eq!(back, rule, "{}", line);
    }

    #[test]
    fn any_text_is_a_rule_or_an_error(text: String, words in prop::collection::vec(word(), 0..12)) {
        let _ = text.parse::<Rule>();
        let line = words.join(" ");
        if let Ok(rule) = line.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }

    #[test]
    fn every_rate_comes_back_from_its_line(inbound: bool, micros in 0..100_000_000_000_u64, burst in 1..u32::MAX, v4: u8, v6: u8) {
        let (interval, burst) = (Duration::from_micros(micros), NonZeroU32::new(burst).expect("from 1 on"));
        let rate = if inbound { Rate::accepts(interval, burst) } else { Rate::dials(interval, burst) };
        let rate = rate.per_prefix(Prefixes::new(v4, v6));
        let line = rate.to_string();
        let mut words = Words::of(&line);
        prop_assert_eq!(words.next(), Some("rate"));
        prop_assert_eq!(words.rate(), Ok(rate), "{}", line);
        prop_assert_eq!(words.end(), Ok(()));
    }
}

/// Words that a line has, in any order.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "allow",
        "block",
        "peer",
        "network",
        "ip",
        "port",
        "direction",
        "transport",
        "listener",
        "until",
        "note",
        "everything",
        "inbound",
        "knock",
        "192.0.2.0/24",
        "192.0.2.7",
        "4001",
        "4000-4010",
        "/ip4/0.0.0.0/tcp/1",
        "2027-01-31T00:00:00Z",
        "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
        "ü",
    ])
    .prop_map(str::to_owned)
}
