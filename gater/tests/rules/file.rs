//! Rules in a file, when all goes well, and when the disk does not.

use crate::asking::{Asking as _, Time, address, cidr};
use libp2p_gater::{
    Admission, Caps, Direction, FileError, LineError, Member, Prefixes, Rate, Rule, RuleError, Rules, SaveError,
    Standing, TransportKind,
};
use libp2p_identity::PeerId;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

const PEERS: [&str; 3] = [
    "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
    "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
    "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
];

fn peer(at: usize) -> PeerId {
    PEERS[at].parse().expect("a peer id")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("text")
}

/// One of everything there is.
pub(crate) fn everything(rules: &Rules) {
    let changed = rules.change(|change| {
        change.block(peer(0))?;
        change.block(cidr("192.0.2.0/24"))?;
        change.block(cidr("2001:db8::1/128"))?;
        let later = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        change.insert(Rule::block().peer(peer(1)).until(later).note("spam,\nand # more"))?;
        let rule = Rule::allow()
            .peer(peer(1))
            .network(cidr("10.0.0.0/8"))
            .ports(4000..=4010);
        change.insert(rule.direction(Direction::Outbound))?;
        change.insert(Rule::block().network(cidr("192.0.2.0/24")).port(25))?;
        let rule = Rule::block()
            .transport(TransportKind::Quic)
            .listener(address("/ip4/0.0.0.0/udp/4001/quic-v1"));
        change.insert(rule)?;
        change.insert(Rule::allow().peer(peer(2)).network(cidr("::/0")))?;
        let home = [
            "192.0.2.7".parse().expect("an IP"),
            "2001:db8::7".parse().expect("an IP"),
        ];
        change.set(
            "validators",
            Standing::Member,
            [Member::at(peer(1), home), peer(2).into()],
        )?;
        change.set("nobody", Standing::Blocked, std::iter::empty::<PeerId>())?;
        change.require_knock_of_everybody(true);
        change.require_knock(peer(0), true)?;
        change.refuse_names(true);
        change.admit(Admission::KnownAddresses);
        let caps = Caps::new()
            .with_total(1000)
            .with_direction(Direction::Inbound, 600)
            .with_per_ip(8);
        let caps = caps
            .with_pending(Direction::Outbound, 50)
            .with_per_prefix(16, Prefixes::new(24, 56));
        change.caps(caps.with_transport(TransportKind::Relayed, 4));
        let burst = NonZeroU32::new(16).expect("not zero");
        change.rates([
            Rate::accepts(Duration::from_secs(5), burst).per_prefix(Prefixes::new(32, 64)),
            Rate::dials(Duration::from_micros(1_500), burst),
        ])
    });
    changed.expect("changed");
}

#[test]
fn one_of_everything_is_written_as_people_read_it_and_comes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let rules = Rules::new();
    everything(&rules);
    rules.save(&path).expect("saved");
    let [a, b, c] = PEERS;
    let expected = format!(
        "libp2p-gater rules 1 until end
require-knock everybody
require-knock peer {a}
refuse-names
admit known-addresses
cap total 1000
cap inbound 600
cap pending-outbound 50
cap per-ip 8
cap per-prefix 16 v4 24 v6 56
cap transport relayed 4
rate inbound one-per 5s burst 16 v4 32 v6 64
rate outbound one-per 1500us burst 16 v4 24 v6 48
set nobody blocked
set validators member
member validators {b} 192.0.2.7 2001:db8::7
member validators {c}
block transport quic listener /ip4/0.0.0.0/udp/4001/quic-v1
block peer {b} until 2030-03-17T17:46:40Z note spam, and # more
allow peer {b} network 10.0.0.0/8 port 4000-4010 direction outbound
allow peer {c} network ::/0
block network 192.0.2.0/24
block network 192.0.2.0/24 port 25
block ip 2001:db8::1
block peer {a}
end
"
    );
    assert_eq!(read(&path), expected);
    let second = Rules::load(&path).expect("loaded");
    let again = directory.path().join("again");
    second.save(&again).expect("saved");
    assert_eq!(read(&again), expected);
    assert_eq!(second.list().len(), 8);
    for rule in second.list() {
        assert_eq!(rule.to_string().parse::<Rule>().as_ref(), Ok(&rule));
    }
}

#[test]
fn a_file_written_by_hand_may_have_comments_and_another_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let text = format!(
        "libp2p-gater rules 1\r\n# ours\n\n  block   port 25 ip ::ffff:192.0.2.7 \nallow everything\nblock until 2001-01-01T00:00:00Z peer {}\nend\n\n# no more",
        PEERS[0]
    );
    std::fs::write(&path, text).expect("written");
    let rules = Rules::load(&path).expect("loaded");
    let mut lines: Vec<String> = rules.list().iter().map(ToString::to_string).collect();
    lines.sort();
    // The one that expired in 2001 is not there.
    assert_eq!(lines, ["allow everything", "block ip 192.0.2.7 port 25"]);
}

#[test]
fn what_has_expired_is_written_behind_the_rest_and_is_out_of_force() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let time = Time::default();
    let rules = time.rules();
    let soon = time.now() + Duration::from_secs(5);
    rules
        .change(|change| {
            change.insert(Rule::block().network(cidr("192.0.2.0/24")).until(soon))?;
            change.block(cidr("203.0.113.0/24"))
        })
        .expect("changed");
    time.pass(Duration::from_secs(5));
    let expected = "libp2p-gater rules 1 until end
block network 203.0.113.0/24
# expired by the clock of this machine; kept in case it is wrong
block network 192.0.2.0/24 until 2027-01-15T08:00:05Z
end
";
    // Whether or not it has been put aside.
    for _ in 0..2 {
        rules.save(&path).expect("saved");
        assert_eq!(read(&path), expected);
        assert_eq!(rules.accept("/ip4/192.0.2.7/tcp/1"), "pass");
        assert_eq!((rules.list().len(), rules.expired().len()), (1, 1));
        rules.reload(&path).expect("loaded");
    }
}

/// NT-20: a store that fails leaves memory unchanged.
#[test]
fn a_change_that_cannot_be_saved_is_not_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let (rules, peer) = (Rules::new(), PeerId::random());
    for path in [
        directory.path().join("no such directory").join("rules"),
        // A directory cannot be replaced by a file.
        directory.path().to_owned(),
    ] {
        let changed = rules.change_and_save(&path, |change| change.block(peer));
        assert!(
            matches!(&changed, Err(SaveError::File(FileError::Io { path: named, .. })) if *named == path),
            "{changed:?}"
        );
        assert_eq!(rules.dial(&peer), "pass");
        assert!(rules.save(&path).is_err());
    }
    assert!(directory.path().is_dir());
    let left = std::fs::read_dir(directory.path()).expect("a list");
    assert_eq!(left.count(), 0, "nothing is left behind");
}

#[test]
fn a_change_that_is_refused_leaves_the_file_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let rules = Rules::new();
    rules.save(&path).expect("saved");
    let refused: Result<(), SaveError> = rules.change_and_save(&path, |change| {
        change.block(PeerId::random())?;
        Err(RuleError::Name("no".into()))
    });
    refused.expect_err("it says so");
    assert_eq!(read(&path), "libp2p-gater rules 1 until end\nend\n");
}

#[cfg(unix)]
#[test]
fn a_file_that_others_cannot_read_stays_so() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let rules = Rules::new();
    rules.save(&path).expect("saved");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
    rules.save(&path).expect("saved");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Root may give a file away; where these tests do not run as root the group alone is looked at,
/// which is their own.
#[cfg(unix)]
#[test]
fn a_file_keeps_its_owner_and_its_group() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let rules = Rules::new();
    rules.save(&path).expect("saved");
    let owner = || {
        let metadata = std::fs::metadata(&path).expect("there");
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
    };
    let given = chown(&path, Some(65_534), Some(65_533)).is_ok();
    let before = owner();
    assert_eq!((before.0, before.1) == (65_534, 65_533), given);
    rules.change(|change| change.block(peer(0))).expect("changed");
    rules.save(&path).expect("saved");
    assert_eq!(owner(), before);
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_stays_a_link() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, link) = (directory.path().join("rules"), directory.path().join("link"));
    let rules = Rules::new();
    rules.save(&path).expect("saved");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    rules
        .change(|change| change.block(cidr("192.0.2.0/24")))
        .expect("changed");
    rules.save(&link).expect("saved");
    assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(
        read(&path),
        "libp2p-gater rules 1 until end\nblock network 192.0.2.0/24\nend\n"
    );
}

#[test]
fn reloading_replaces_everything_or_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let (rules, old, new) = (Rules::new(), PeerId::random(), PeerId::random());
    rules.change(|change| change.block(old)).expect("changed");
    std::fs::write(
        &path,
        format!("libp2p-gater rules 1\nblock peer {new}\nblok peer {old}\nend\n"),
    )
    .expect("written");
    let error = rules.reload(&path).expect_err("a damaged file");
    assert!(
        matches!(&error, FileError::Line { line: 3, error: LineError::Statement { word, .. }, .. } if word == "blok")
    );
    assert_eq!(
        (rules.dial(&old), rules.dial(&new)),
        ("block_peer".into(), "pass".into())
    );
    std::fs::write(&path, format!("libp2p-gater rules 1\nblock peer {new}\nend\n")).expect("written");
    rules.reload(&path).expect("in order");
    assert_eq!(
        (rules.dial(&old), rules.dial(&new)),
        ("pass".into(), "block_peer".into())
    );
}

#[test]
fn a_rule_that_could_not_be_read_again_is_not_taken() {
    let rules = Rules::new();
    let insert = |rule: Rule| rules.change(|change| change.insert(rule));
    let about = || Rule::block().peer(peer(0));
    let long = "x".repeat(5000);
    let refused = insert(about().note(&long)).expect_err("too long");
    assert!(
        matches!(refused, RuleError::TooLong(bytes) if bytes > 5000),
        "{refused}"
    );
    let nowhere = libp2p_core::Multiaddr::empty();
    let refused = insert(Rule::block().listener(nowhere)).expect_err("no address");
    assert!(matches!(refused, RuleError::Listener(_)), "{refused}");
    // The longest that fits is read again.
    let shorter = insert(about().note(&long[..4096 - about().note("x").to_string().len() + 1]));
    shorter.expect("short enough");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    rules.save(&path).expect("saved");
    assert_eq!(Rules::load(&path).expect("loaded").list(), rules.list());
}

#[test]
fn a_member_that_is_known_at_many_addresses_is_read_again() {
    let rules = Rules::new();
    let ips = (0..500_u16).map(|n| std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, n));
    let member = Member::at(peer(1), ips.map(Into::into));
    let changed = rules.change(|change| {
        change.admit(Admission::KnownAddresses);
        change.set("validators", Standing::Member, [member])
    });
    changed.expect("changed");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    rules.save(&path).expect("saved");
    let read = Rules::load(&path).expect("loaded");
    assert_eq!(read.sets(), rules.sets());
    let last = "/ip6/2001:db8:ffff:ffff:ffff:ffff:ffff:1f3/tcp/1";
    assert_eq!(read.accept(last), "pass");
    read.save(directory.path().join("again")).expect("saved");
    assert_eq!(self::read(&path), self::read(&directory.path().join("again")));
}
