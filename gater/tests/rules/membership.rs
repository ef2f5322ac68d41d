//! Named sets, and who is let in that no list names.

use crate::asking::Asking as _;
use libp2p_gater::{Admission, Member, RuleError, Rules, Standing};
use libp2p_identity::PeerId;

fn admit(rules: &Rules, admission: Admission) {
    rules
        .change(|change| {
            change.admit(admission);
            Ok(())
        })
        .expect("changed");
}

#[test]
fn a_closed_network_knows_its_members_in_both_directions() {
    let (rules, member, stranger) = (Rules::new(), PeerId::random(), PeerId::random());
    rules
        .change(|change| change.set("us", Standing::Member, [member]))
        .expect("changed");
    admit(&rules, Admission::Members);
    let there = "/ip4/192.0.2.7/tcp/1";
    assert_eq!(
        (rules.dial(&member), rules.dial(&stranger)),
        ("pass".into(), "admit_members".into())
    );
    assert_eq!(rules.accept(there), "pass", "nobody is known yet");
    assert_eq!(rules.secured_in(&member, there), "pass");
    assert_eq!(rules.secured_in(&stranger, there), "admit_members");
    assert_eq!(rules.secured_out(&stranger, there), "admit_members");
}

#[test]
fn only_addresses_at_which_a_member_is_known_are_accepted() {
    let (rules, member) = (Rules::new(), PeerId::random());
    let home = [
        "192.0.2.7".parse().expect("an IP"),
        "::ffff:192.0.2.8".parse().expect("an IP"),
    ];
    rules
        .change(|change| change.set("us", Standing::Member, [Member::at(member, home)]))
        .expect("changed");
    admit(&rules, Admission::KnownAddresses);
    for (at, answer) in [
        ("/ip4/192.0.2.7/tcp/1", "pass"),
        ("/ip4/192.0.2.8/tcp/9", "pass"),
        ("/ip4/192.0.2.9/tcp/1", "admit_known_addresses"),
        ("/memory/1", "admit_known_addresses"),
    ] {
        assert_eq!(rules.accept(at), answer, "{at}");
    }
    let relay = PeerId::random();
    let circuit = format!("/ip4/192.0.2.7/tcp/1/p2p/{relay}/p2p-circuit");
    assert_eq!(
        rules.accept_on(&circuit, &format!("/p2p/{member}")),
        "admit_known_addresses"
    );
    // Where to dial is ours to know.
    assert_eq!(rules.dial_at(Some(&member), "/ip4/203.0.113.1/tcp/1"), "pass");
    assert_eq!(
        rules.secured_in(&PeerId::random(), "/ip4/192.0.2.7/tcp/1"),
        "admit_members"
    );
}

#[test]
fn a_set_can_allow_or_block_its_members() {
    let (rules, friend, foe) = (Rules::new(), PeerId::random(), PeerId::random());
    rules
        .change(|change| {
            change.set("friends", Standing::Allowed, [friend])?;
            change.set("foes", Standing::Blocked, [foe, friend])?;
            change.admit(Admission::Members);
            Ok(())
        })
        .expect("changed");
    assert_eq!(
        (rules.dial(&friend), rules.dial(&foe)),
        ("allow".into(), "block_set".into())
    );
    assert_eq!(
        rules.sets(),
        [
            ("foes".to_owned(), Standing::Blocked, 2),
            ("friends".to_owned(), Standing::Allowed, 1)
        ]
    );
    rules
        .change(|change| {
            change.remove_set("foes");
            Ok(())
        })
        .expect("changed");
    assert_eq!(
        rules.dial(&foe),
        "admit_members",
        "a blocked set makes no members, and this one is gone"
    );
}

#[test]
fn a_name_of_a_set_is_a_word() {
    let rules = Rules::new();
    for name in ["", "two words", "line\nbreak", "ümlaut", &"x".repeat(65)] {
        let set = rules.change(|change| change.set(name, Standing::Member, [PeerId::random()]));
        assert_eq!(set, Err(RuleError::Name(name.to_owned())));
    }
    let many = rules
        .change(|change| (0..100).try_for_each(|n| change.set(&n.to_string(), Standing::Member, [PeerId::random()])));
    assert!(matches!(
        many,
        Err(RuleError::TooMany {
            what: "sets",
            at_most: 64
        })
    ));
}
