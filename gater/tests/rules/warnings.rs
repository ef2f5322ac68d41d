//! What rules say that is hardly meant is said.

use crate::asking::{Asking as _, cidr};
use crate::logs::logged;
use libp2p_gater::{Admission, Member, Rule, Rules, Standing, Warning};
use libp2p_identity::{Keypair, PeerId};
use tracing::Level;

fn load(lines: &str) -> Rules {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    std::fs::write(&path, format!("libp2p-gater rules 1\n{lines}\nend\n")).expect("written");
    Rules::load(&path).expect("loaded")
}

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

#[test]
fn admission_of_members_without_a_member_is_said_when_it_is_loaded() {
    let member = peer();
    for (lines, warning) in [
        ("admit members".to_owned(), Some(Warning::NoMembers(Admission::Members))),
        (
            "admit members\nset us member".to_owned(),
            Some(Warning::NoMembers(Admission::Members)),
        ),
        (
            format!("admit known-addresses\nset them blocked\nmember them {member}"),
            Some(Warning::NoMembers(Admission::KnownAddresses)),
        ),
        (
            format!("admit known-addresses\nset us member\nmember us {member}"),
            Some(Warning::NoKnownAddresses),
        ),
        (format!("admit members\nset us member\nmember us {member}"), None),
        (
            format!("admit known-addresses\nset us member\nmember us {member} 192.0.2.7"),
            None,
        ),
        ("admit everyone".to_owned(), None),
    ] {
        let mut found = Vec::new();
        let said = logged(Level::WARN, || found = load(&lines).warnings());
        assert_eq!(found, Vec::from_iter(warning.clone()), "{lines}");
        assert_eq!(said.len(), found.len(), "{lines}: {said:?}");
        if let Some(warning) = warning {
            assert!(said[0].contains(&warning.to_string()), "{said:?}");
        }
    }
}

#[test]
fn admission_that_lets_nothing_in_is_said_once_and_again_when_it_returns() {
    let rules = Rules::new();
    let admit = |admission| {
        let changed = rules.change(|change| {
            change.admit(admission);
            Ok(())
        });
        changed.expect("changed");
    };
    assert_eq!(logged(Level::WARN, || admit(Admission::Members)).len(), 1);
    let again = logged(Level::WARN, || {
        rules
            .change(|change| change.block(cidr("192.0.2.0/24")))
            .expect("changed");
    });
    assert_eq!(again.len(), 0, "{again:?}");
    let set = |members: Vec<Member>| {
        rules
            .change(|change| change.set("us", Standing::Member, members))
            .expect("changed")
    };
    assert_eq!(logged(Level::WARN, || set(vec![peer().into()])).len(), 0);
    assert_eq!(rules.warnings(), []);
    assert_eq!(logged(Level::WARN, || set(vec![])).len(), 1);
}

#[test]
fn a_peer_that_no_key_has_is_said_in_one_line_whatever_names_it() {
    let nobody = PeerId::random();
    for rule in [
        "block peer",
        "allow peer",
        "require-knock peer",
        "set us member\nmember us",
    ] {
        let mut found = Vec::new();
        let said = logged(Level::WARN, || found = load(&format!("{rule} {nobody}")).warnings());
        assert_eq!(found, [Warning::NoKey(nobody)], "{rule}");
        assert!(said.len() == 1 && said[0].contains(&nobody.to_string()), "{said:?}");
    }
    let rules = Rules::new();
    let said = logged(Level::WARN, || {
        let blocked = rules.change(|change| (0..100).try_for_each(|_| change.block(PeerId::random())));
        blocked.expect("it is no error");
    });
    assert!(said.len() == 1 && said[0].contains("peers=100"), "{said:?}");
    let said = logged(Level::WARN, || {
        let blocked = rules.change(|change| (0..100).try_for_each(|_| change.block(peer())));
        blocked.expect("changed");
        rules
            .change(|change| change.insert(Rule::block().peer(peer()).port(1)))
            .expect("changed");
    });
    assert_eq!(said, [""; 0]);
    assert_eq!(rules.warnings().len(), 100);
    assert_eq!(rules.dial(&nobody), "pass");
}
