//! A file that is edited under a running node.

use crate::asking::{Asking as _, cidr};
use libp2p_gater::{FileError, Rules, SaveError};
use libp2p_identity::PeerId;
use std::net::IpAddr;
use std::path::Path;

fn block(rules: &Rules, path: &Path, peer: PeerId) -> Result<(), SaveError> {
    rules.change_and_save(path, |change| change.block(peer))
}

fn edit(path: &Path, from: &str, to: &str) -> String {
    let text = std::fs::read_to_string(path).expect("text");
    assert!(text.contains(from), "{text}");
    let text = text.replace(from, to);
    std::fs::write(path, &text).expect("written");
    text
}

#[test]
fn a_hand_edit_under_a_running_node_is_not_overwritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let (rules, one, two) = (Rules::new(), PeerId::random(), PeerId::random());
    block(&rules, &path, one).expect("saved");
    let edited = edit(&path, "\nend\n", "\nblock network 192.0.2.0/24\nend\n");
    for _ in 0..2 {
        let refused = block(&rules, &path, two).expect_err("edited");
        assert!(matches!(refused, SaveError::File(_)), "{refused}");
        assert!(refused.to_string().contains("block network 192.0.2.0/24"), "{refused}");
        rules.save(&path).expect_err("edited");
        assert_eq!(std::fs::read_to_string(&path).expect("text"), edited);
        assert_eq!(rules.dial(&two), "pass", "a change that cannot be saved is not made");
    }
    rules.reload(&path).expect("loaded");
    block(&rules, &path, two).expect("saved");
    let again = Rules::load(&path).expect("loaded");
    assert_eq!(
        (again.dial(&one), again.dial(&two)),
        ("block_peer".into(), "block_peer".into())
    );
    assert_eq!(again.accept("/ip4/192.0.2.7/tcp/1"), "block_network");
}

#[test]
fn comments_and_another_order_are_no_edit() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let text = "libp2p-gater rules 1\n# ours\nblock network 192.0.2.0/24\nblock ip 203.0.113.9\nend\n";
    std::fs::write(&path, text).expect("written");
    let rules = Rules::load(&path).expect("loaded");
    let text = "libp2p-gater rules 1\nblock ip 203.0.113.9\n\n# theirs\nblock network 192.0.2.0/24\nend\n";
    std::fs::write(&path, text).expect("written");
    block(&rules, &path, PeerId::random()).expect("saved");
}

#[test]
fn a_file_that_is_only_touched_is_no_edit() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let rules = Rules::new();
    block(&rules, &path, PeerId::random()).expect("saved");
    let text = std::fs::read(&path).expect("there");
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, text).expect("written");
    block(&rules, &path, PeerId::random()).expect("saved");
}

#[test]
fn a_file_that_is_being_edited_is_an_error_with_its_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let rules = Rules::new();
    block(&rules, &path, PeerId::random()).expect("saved");
    edit(&path, "\nend\n", "\nblok everything\nend\n");
    let refused = block(&rules, &path, PeerId::random()).expect_err("half an edit");
    assert!(
        matches!(&refused, SaveError::File(FileError::Line { line: 3, .. })),
        "{refused}"
    );
}

#[test]
fn what_another_program_has_written_is_named_line_by_line_and_not_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let (rules, peer) = (Rules::new(), PeerId::random());
    block(&rules, &path, peer).expect("saved");
    let other = Rules::load(&path).expect("loaded");
    let changed = other.change_and_save(&path, |change| {
        change.unblock(peer);
        for n in 0..20 {
            change.block(IpAddr::from([203, 0, 113, n]))?;
        }
        Ok(())
    });
    changed.expect("saved");
    let Err(SaveError::File(error @ FileError::Edited { .. })) = block(&rules, &path, PeerId::random()) else {
        panic!("it was replaced");
    };
    let text = error.to_string();
    let FileError::Edited { path: named, edits } = error else {
        unreachable!("matched above")
    };
    assert_eq!((&named, edits.added.len(), edits.more), (&path, 8, 12));
    assert_eq!(edits.removed, [format!("block peer {peer}")]);
    assert!(
        text.starts_with(&path.display().to_string()) && text.ends_with("and 12 more"),
        "{text}"
    );
    assert!(text.contains("added `block ip 203.0.113.0`") && text.contains(&format!("removed `block peer {peer}`")));
}

#[test]
fn a_file_that_the_rules_do_not_know_is_not_replaced_where_something_would_be_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    std::fs::write(
        &path,
        "libp2p-gater rules 1\nadmit members\nblock ip 203.0.113.9\nend\n",
    )
    .expect("written");
    let rules = Rules::new();
    let error = rules.save(&path).expect_err("it would lose two lines");
    assert!(
        matches!(&error, FileError::Edited { edits, .. } if edits.added == ["admit members", "block ip 203.0.113.9"]),
        "{error}"
    );
    let changed = rules.change(|change| {
        change.admit(libp2p_gater::Admission::Members);
        change.block(cidr("203.0.113.0/24"))?;
        change.block(cidr("203.0.113.9/32"))
    });
    changed.expect("changed");
    rules.save(&path).expect("nothing is lost");
    rules.save(&path).expect("it knows the file by now");
}

#[test]
fn a_file_is_overwritten_where_that_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let rules = Rules::new();
    for there in ["libp2p-gater rules 1\nblock everything\nend\n", "no rules at all"] {
        std::fs::write(&path, there).expect("written");
        rules.save(&path).expect_err("not by itself");
        assert_eq!(std::fs::read_to_string(&path).expect("text"), there);
        rules.overwrite(&path).expect("overwritten");
        block(&rules, &path, PeerId::random()).expect("saved");
    }
}

#[test]
fn a_file_that_is_gone_or_empty_is_written_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let (rules, peer) = (Rules::new(), PeerId::random());
    block(&rules, &path, peer).expect("saved");
    std::fs::remove_file(&path).expect("removed");
    block(&rules, &path, PeerId::random()).expect("saved");
    std::fs::write(&path, "").expect("written");
    block(&rules, &path, PeerId::random()).expect("saved");
    assert_eq!(Rules::load(&path).expect("loaded").dial(&peer), "block_peer");
}

/// What is loaded while a rule expires has the same rules.
#[test]
fn a_rule_that_expires_is_no_edit() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let time = crate::asking::Time::default();
    let rules = time.rules();
    let soon = time.now() + std::time::Duration::from_secs(5);
    let inserted = rules.change_and_save(&path, |change| {
        let rule = libp2p_gater::Rule::block().port(25).until(soon);
        change.insert(rule)
    });
    inserted.expect("saved");
    // In another order, so that it is read.
    edit(&path, "\nend\n", "\n# ours\nend\n");
    time.pass(std::time::Duration::from_secs(10));
    block(&rules, &path, PeerId::random()).expect("saved");
}

/// go-libp2p's gater keeps a set of addresses and a set of subnets, so what blocks in the one is
/// not unblocked in the other.
#[test]
fn an_address_and_the_network_of_that_one_address_are_one_rule() {
    let rules = Rules::new();
    let ip: IpAddr = "10.0.0.1".parse().expect("an IP");
    rules.change(|change| change.block(ip)).expect("changed");
    assert_eq!(rules.list().len(), 1);
    rules
        .change(|change| change.block(cidr("10.0.0.1/32")))
        .expect("changed");
    assert_eq!(rules.list().len(), 1);
    let unblocked = rules.change(|change| {
        change.unblock(cidr("10.0.0.1/32"));
        Ok(())
    });
    unblocked.expect("changed");
    assert_eq!(rules.accept("/ip4/10.0.0.1/tcp/1"), "pass");
}

/// What is dangling is written where it leads.
#[cfg(unix)]
#[test]
fn a_link_to_a_file_that_is_not_there_yet_stays_a_link() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, link) = (directory.path().join("rules"), directory.path().join("link"));
    std::os::unix::fs::symlink("rules", &link).expect("linked");
    block(&Rules::new(), &link, PeerId::random()).expect("saved");
    assert!(std::fs::symlink_metadata(&link).expect("there").is_symlink());
    assert!(std::fs::symlink_metadata(&path).expect("there").is_file());
}
