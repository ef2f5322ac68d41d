//! IPv4 inside IPv6: a host is one host, however its address is written.

use crate::asking::{Asking as _, Time, cidr};
use libp2p_gater::{Admission, Caps, Direction, Member, Prefixes, Rate, Rule, RuleError, Rules, Standing};
use libp2p_identity::PeerId;
use std::num::NonZeroU32;
use std::time::Duration;

/// Ways to 10.0.0.1. The first is IPv4 itself in another notation.
const FORMS: [(&str, &str); 12] = [
    ("mapped", "::ffff:10.0.0.1"),
    ("compatible", "::10.0.0.1"),
    ("translated", "::ffff:0:10.0.0.1"),
    ("NAT64", "64:ff9b::10.0.0.1"),
    ("local NAT64, /48", "64:ff9b:1:a00:0:100::"),
    ("local NAT64, /56", "64:ff9b:1:ab0a:0:1::"),
    ("local NAT64, /64", "64:ff9b:1:abcd:a:0:100:0"),
    ("local NAT64, /96", "64:ff9b:1:abcd::10.0.0.1"),
    ("6to4", "2002:a00:1::1"),
    ("Teredo", "2001:0:c633:6401:0:63bf:f5ff:fffe"),
    ("Teredo's server", "2001:0:a00:1:0:63bf:39cc:9bfe"),
    ("ISATAP", "2001:db8::5efe:10.0.0.1"),
];

/// Those by which the host of IPv4 is counted.
const COUNTED: [&str; 6] = ["mapped", "compatible", "translated", "NAT64", "6to4", "Teredo"];

fn at(ip: &str) -> String {
    format!("/ip6/{ip}/tcp/1")
}

fn changed(rules: &Rules, change: impl FnOnce(&mut libp2p_gater::Change) -> Result<(), RuleError>) {
    rules.change(change).expect("changed");
}

#[test]
fn a_block_of_ipv4_holds_for_every_form_in_which_ipv6_leads_there() {
    let (rules, relay, peer) = (Rules::new(), PeerId::random(), PeerId::random());
    changed(&rules, |change| change.block(cidr("10.0.0.0/8")));
    for (form, ip) in FORMS {
        assert_eq!(rules.dial_at(None, &at(ip)), "block_network", "{form}");
        assert_eq!(rules.accept(&at(ip)), "block_network", "{form}");
        assert_eq!(rules.live_in(&peer, &at(ip)), "block_network", "{form}");
        let behind = format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit{}", at(ip));
        assert_eq!(rules.dial_at(None, &behind), "block_network", "{form} behind a relay");
    }
    // With a friend on the allow list the answer takes the long way, and is the same.
    changed(&rules, |change| change.insert(Rule::allow().peer(relay)));
    for (form, ip) in FORMS {
        assert_eq!(rules.accept(&at(ip)), "block_network", "{form}");
    }
}

#[test]
fn a_conditional_block_of_ipv4_holds_for_every_form_too() {
    let (rules, peer) = (Rules::new(), PeerId::random());
    changed(&rules, |change| {
        change.insert(Rule::block().network(cidr("10.0.0.0/24")).direction(Direction::Inbound))?;
        change.insert(Rule::block().peer(peer).network(cidr("10.0.0.0/8")))
    });
    for (form, ip) in FORMS {
        assert_eq!(rules.accept(&at(ip)), "block_network", "{form}");
        assert_eq!(rules.dial_at(None, &at(ip)), "pass", "{form}");
        assert_eq!(rules.dial_at(Some(&peer), &at(ip)), "block_peer", "{form}");
    }
}

#[test]
fn an_allow_of_ipv4_is_for_ipv4_alone_and_a_range_of_ipv6_allows_its_own_form() {
    let rules = Rules::new();
    changed(&rules, |change| {
        change.insert(Rule::allow().network(cidr("10.0.0.0/8")))?;
        change.insert(Rule::block())
    });
    assert_eq!(rules.accept(&at(FORMS[0].1)), "allow");
    for (form, ip) in &FORMS[1..] {
        assert_eq!(rules.accept(&at(ip)), "block", "{form}");
        assert_eq!(rules.dial_at(None, &at(ip)), "block", "{form}");
    }
    changed(&rules, |change| {
        change.block(cidr("10.0.0.0/8"))?;
        change.insert(Rule::allow().network(cidr("64:ff9b::/96")))
    });
    assert_eq!(rules.accept(&at("64:ff9b::10.0.0.1")), "allow");
    assert_eq!(rules.accept(&at("2002:a00:1::1")), "block_network");
}

#[test]
fn a_member_that_is_known_at_an_ipv4_address_is_not_known_at_a_form_of_it() {
    let (rules, member) = (Rules::new(), PeerId::random());
    changed(&rules, |change| {
        change.admit(Admission::KnownAddresses);
        change.set(
            "us",
            Standing::Member,
            [Member::at(member, ["10.0.0.1".parse().expect("an IP")])],
        )
    });
    assert_eq!(rules.accept(&at(FORMS[0].1)), "pass");
    for (form, ip) in &FORMS[1..] {
        assert_eq!(rules.accept(&at(ip)), "admit_known_addresses", "{form}");
    }
}

#[test]
fn what_leads_to_no_host_of_ipv4_is_no_form_of_it() {
    let rules = Rules::new();
    changed(&rules, |change| {
        change.block(cidr("0.0.0.0/8"))?;
        change.block(cidr("10.0.0.0/8"))
    });
    for ip in [
        "::1",
        "::",
        "2001:db8:a00:1::1",
        "64:ff9a::10.0.0.1",
        "64:ff9b:2::10.0.0.1",
        "2001:1:a00:1::1",
        "2001:db8::5eff:10.0.0.1",
        // Of these the shorter layouts read zeros alone.
        "64:ff9b:1::8.8.8.8",
    ] {
        assert_eq!(rules.accept(&at(ip)), "pass", "{ip}");
    }
}

/// Where the form names one host, that host is counted; where it can be read in several ways, or
/// every peer can write it, the IPv6 prefix is.
#[test]
fn caps_and_rates_count_a_host_once_however_its_address_is_written() {
    let one = NonZeroU32::MIN;
    for (form, ip) in FORMS {
        let counted = COUNTED.contains(&form);
        let rules = Rules::new();
        changed(&rules, |change| {
            change.caps(Caps::new().with_per_ip(1));
            Ok(())
        });
        rules.established(1, &PeerId::random(), Direction::Inbound, "/ip4/10.0.0.1/tcp/1");
        let full = if counted { "cap_per_ip" } else { "pass" };
        assert_eq!(rules.accept(&at(ip)), full, "{form}");

        let rules = Rules::new();
        changed(&rules, |change| {
            change.caps(Caps::new().with_per_prefix(1, Prefixes::default()));
            Ok(())
        });
        rules.established(1, &PeerId::random(), Direction::Inbound, &at(ip));
        let full = if counted { "cap_per_prefix" } else { "pass" };
        assert_eq!(rules.accept("/ip4/10.0.0.9/tcp/1"), full, "{form}");
        rules.closed(1, &PeerId::random(), Direction::Inbound, &at(ip));
        assert_eq!(rules.accept("/ip4/10.0.0.9/tcp/1"), "pass", "{form}");

        let rules = Time::default().rules();
        changed(&rules, |change| {
            change.rates([Rate::accepts(Duration::from_secs(1), one)])
        });
        assert_eq!(rules.accept(&at(ip)), "pass", "{form}");
        let rated = if counted { "rate" } else { "pass" };
        assert_eq!(rules.accept("/ip4/10.0.0.9/tcp/1"), rated, "{form}");
    }
    // Behind one translator are many hosts, which do not share a bucket.
    let rules = Time::default().rules();
    changed(&rules, |change| {
        change.rates([Rate::accepts(Duration::from_secs(1), one)])
    });
    assert_eq!(rules.accept(&at("64:ff9b::10.0.0.1")), "pass");
    assert_eq!(rules.accept(&at("64:ff9b::192.0.2.1")), "pass");
    assert_eq!(rules.accept(&at("64:ff9b::192.0.2.2")), "rate");
}
