//! Lists that are changed while their files are read. A pipe is a file that is read for as long as
//! the test likes.

use crate::asking::Asking as _;
use crate::logs::logged;
use libp2p_gater::{NetworkList, Rules, Standing};
use std::io::Write as _;
use std::path::Path;
use tracing::Level;

/// What `reload_lists` says of the list `x`, and its log, if `meanwhile` is done while it reads the
/// file of that list. The file said `192.0.2.0/24` before.
fn reloaded(rules: &Rules, says: &str, meanwhile: impl FnOnce(NetworkList, &Path)) -> (usize, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x");
    std::fs::write(&path, "192.0.2.0/24\n").expect("written");
    rules.import("x", Standing::Blocked, &path, None).expect("imported");
    let (_, _, list) = rules.lists().pop().expect("a list");
    std::fs::remove_file(&path).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("mkfifo").success());
    std::thread::scope(|scope| {
        let reloading = scope.spawn(|| {
            let mut results = Vec::new();
            let said = logged(Level::INFO, || results = rules.reload_lists());
            (results, said)
        });
        // Opened as soon as the other end is: from here on the list is being read.
        let mut pipe = std::fs::File::options().write(true).open(&path).expect("opened");
        meanwhile(list, directory.path());
        pipe.write_all(says.as_bytes()).expect("written");
        drop(pipe);
        let (results, said) = reloading.join().expect("no panic");
        let [(name, Ok(networks))] = &results[..] else {
            panic!("{results:?}")
        };
        assert_eq!(name, "x");
        (*networks, said)
    })
}

#[test]
fn a_list_that_is_changed_while_its_file_is_read_stays_as_it_was_left() {
    const NEW: &str = "203.0.113.0/24\n203.0.112.0/24\n";
    // As it was, and as it is now.
    for says in [NEW, "192.0.2.0/24\n"] {
        let rules = Rules::new();
        let (networks, said) = reloaded(&rules, says, |_, _| {
            let dropped = rules.change(|change| {
                change.remove_list("x");
                Ok(())
            });
            dropped.expect("changed");
        });
        assert_eq!((networks, said.len(), rules.lists().len()), (0, 0, 0), "{said:?}");
        let rules = Rules::new();
        let (networks, said) = reloaded(&rules, says, |_, directory| {
            let other = directory.join("other");
            std::fs::write(&other, "198.51.100.0/24\n198.51.101.0/24\n198.51.103.0/24\n").expect("written");
            rules.import("x", Standing::Blocked, other, None).expect("imported");
        });
        assert_eq!((networks, said.len()), (3, 0), "{said:?}");
        assert_eq!(rules.accept("/ip4/198.51.100.7/tcp/1"), "block_list");
        assert_eq!(rules.accept("/ip4/203.0.113.7/tcp/1"), "pass");
    }
    // The same file, of another standing: what it says is taken, the standing stays.
    let rules = Rules::new();
    let (networks, said) = reloaded(&rules, NEW, |list, _| {
        let changed = rules.change(|change| change.list("x", Standing::Allowed, list));
        changed.expect("changed");
    });
    assert_eq!((networks, said.len()), (2, 1), "{said:?}");
    assert!(said[0].contains("list replaced"), "{said:?}");
    assert_eq!(rules.accept("/ip4/203.0.113.7/tcp/1"), "allow");
}
