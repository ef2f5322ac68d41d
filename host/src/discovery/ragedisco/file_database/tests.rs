#[cfg(unix)]
mod disk;

use super::*;
use libp2p_identity::Keypair;

fn announcement(seed: u8, counter: u64) -> (PeerId, Vec<u8>) {
    let keypair = Keypair::ed25519_from_bytes([seed; 32])
        .unwrap()
        .try_into_ed25519()
        .unwrap();
    let sign = |message: &[u8]| Ok::<_, ()>(keypair.sign(message).try_into().unwrap());
    let addresses = vec![b"192.0.2.7:6690".to_vec()];
    let signed = Announcement::sign(addresses, counter, keypair.public().to_bytes(), sign).unwrap();
    (signed.peer(), signed.encode())
}

fn damage(path: &Path) -> (usize, Damage) {
    match FileDatabase::open(path) {
        Err(FileDatabaseError::Damaged { line, damage, .. }) => (line, damage),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_stored_is_there_after_opening_the_file_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    let (one, two) = (announcement(1, 5), announcement(2, 0));
    let database = FileDatabase::open(&path).unwrap();
    assert!(!path.exists(), "nothing to write yet");
    database.store(&[one.clone(), two.clone()]).unwrap();
    let newer = announcement(1, 6);
    database.store(std::slice::from_ref(&newer)).unwrap();
    drop(database);

    let database = FileDatabase::open(&path).unwrap();
    let unknown = announcement(3, 0).0;
    assert_eq!(database.read(&[two.0, unknown, one.0]).unwrap(), [two, newer]);
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(names, ["announcements"], "nothing is left beside it");
}

#[test]
fn what_has_not_changed_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    let database = FileDatabase::open(&path).unwrap();
    database.store(&[announcement(1, 5)]).unwrap();
    std::fs::remove_file(&path).unwrap();
    database.store(&[announcement(1, 5)]).unwrap();
    assert!(!path.exists());
    database.store(&[announcement(1, 6)]).unwrap();
    assert!(path.exists());
}

#[test]
fn a_write_that_fails_says_where_and_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    let database = FileDatabase::open(&path).unwrap();
    database.store(&[announcement(1, 5)]).unwrap();
    let before = std::fs::read(&path).unwrap();
    // Its directory is gone for a while.
    let away = directory.path().with_extension("away");
    std::fs::rename(directory.path(), &away).unwrap();
    let error = database.store(&[announcement(1, 6)]).unwrap_err();
    std::fs::rename(&away, directory.path()).unwrap();
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(
        database.read(&[announcement(1, 5).0]).unwrap(),
        [announcement(1, 5)],
        "nor does memory differ from it"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_not_an_empty_database() {
    let directory = tempfile::tempdir().unwrap();
    let error = FileDatabase::open(directory.path()).unwrap_err();
    assert!(
        matches!(
            error,
            FileDatabaseError::Io {
                action: "cannot read",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn damage_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    let database = FileDatabase::open(&path).unwrap();
    database.store(&[announcement(1, 1), announcement(2, 2)]).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    assert_eq!((lines.len(), lines[3]), (4, "end 2"));
    let write = |text: String| std::fs::write(&path, text).unwrap();

    write(String::new());
    assert_eq!(damage(&path), (1, Damage::Header));
    write(good.replacen('1', "2", 1));
    assert_eq!(damage(&path), (1, Damage::Header), "a later version");
    write(good.replacen(' ', "_", 4));
    assert_eq!(damage(&path).0, 1);
    write(format!("{}\n{}\nnonsense\nend 2\n", lines[0], lines[1]));
    assert_eq!(damage(&path), (3, Damage::Line));
    write(format!("{}\n{}\n{}\nend 2\n", lines[0], lines[1], lines[1]));
    assert_eq!(damage(&path), (3, Damage::Twice));
    let (peer, digits) = lines[2].split_once(' ').unwrap();
    write(format!(
        "{}\n{} {digits}\nend 1\n",
        lines[0],
        lines[1].split(' ').next().unwrap()
    ));
    assert_eq!(damage(&path), (2, Damage::Peer(peer.parse().unwrap())));

    // Cut anywhere, the end of the file included.
    for length in 0..good.len() {
        write(good[..length].to_owned());
        let (line, _) = damage(&path);
        assert!((1..=5).contains(&line), "{length}: {line}");
    }
    // A changed digit is a wrong signature, or no announcement at all.
    for at in good.find(lines[2]).unwrap()..good.find("end").unwrap() - 1 {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(damage(&path).0, 3, "{at}");
    }
    write(format!("{good}\n"));
    assert_eq!(damage(&path), (5, Damage::End(2)));
}
