use super::*;
use futures::executor::block_on;
use libp2p_identity::Keypair;
use std::sync::atomic::{AtomicU64, Ordering};
use web_time::{SystemTime, UNIX_EPOCH};

fn net(n: u8) -> Prefix {
    Prefix::V4([192, 0, n])
}

fn config() -> Config {
    Config::new(&Keypair::generate_ed25519()).expect("Ed25519")
}

/// A wall clock that shows this, in seconds since 1970.
#[derive(Clone)]
struct Wall(Arc<AtomicU64>);

impl Wall {
    fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let seconds = self.0.clone();
        Clock::of(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)))
    }
}

const DAY: u64 = 86_400;
const TODAY: u64 = 20_000 * DAY;

fn is_known(config: &Config, prefix: Prefix) -> bool {
    config.guard.is_known(prefix)
}

#[test]
fn who_is_known_is_known_after_a_restart_and_the_file_is_its_owners_alone() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("known");
    let before = config().with_known_prefixes_file(&path);
    before.guard.authenticated(net(1));
    before.guard.authenticated(Prefix::Unknown);
    assert!(!path.exists(), "not at once");
    drop(before);
    let text = fs::read_to_string(&path).expect("written at the end");
    assert!(text.contains("\n192.0.1.0/24 1\nend\n"), "{text}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o7777, 0o600);
    }
    let after = config().with_known_prefixes_file(&path);
    assert!(is_known(&after, net(1)) && !is_known(&after, net(2)));
    // Without a change nothing is written.
    fs::remove_file(&path).expect("removed");
    drop(after);
    assert!(!path.exists());
}

#[test]
fn all_clones_share_it_and_it_outlives_what_else_is_forgotten() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("known");
    // Both of these forget what was answered.
    let first = config()
        .with_known_prefixes_file(&path)
        .with_max_openings(std::num::NonZeroU32::MIN)
        .expect("not cloned yet")
        .dangerous()
        .with_clock(SystemTime::now)
        .expect("not cloned yet");
    let clone = first.clone();
    let kept = clone.clone().with_known_prefixes_file(&path);
    clone.guard.authenticated(net(1));
    assert!([&first, &clone, &kept].iter().all(|config| is_known(config, net(1))));
    drop((first, kept));
    drop(clone);
    assert!(is_known(&config().with_known_prefixes_file(&path), net(1)));
}

/// Waits until the file is another one than `old`.
fn next_file(path: &Path, old: Option<&str>) -> String {
    let started = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(path)
            && old != Some(text.as_str())
        {
            return text;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "not written");
        block_on(Deadline::after(Duration::from_millis(5)));
    }
}

#[test]
fn while_it_runs_a_change_is_written_after_a_while_and_once_for_all_that_come_meanwhile() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("known");
    let kept = config().with_known_prefixes_file(&path);
    let known = kept.guard.known().clone();
    known.table().wait = Duration::ZERO;
    kept.guard.authenticated(net(1));
    let first = next_file(&path, None);
    // Nothing is new about the same prefix.
    known.table().wait = Duration::from_secs(3600);
    kept.guard.authenticated(net(1));
    assert!(known.table().due.is_none());
    for n in 2..200 {
        kept.guard.authenticated(net(n));
        assert!(known.table().due.is_some() && known.table().changed);
    }
    assert_eq!(fs::read_to_string(&path).expect("is there"), first, "it waits");
    drop(kept);
    assert!(!known.table().changed && known.table().due.is_none());
    assert_eq!(next_file(&path, Some(&first)).lines().count(), 3 + 199);
}

#[test]
fn what_cannot_be_believed_is_left_out_and_replaced() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("known");
    let good = text::encode(TODAY, &[text::Line::new(net(9), Duration::ZERO)]);
    let wall = Wall::at(TODAY);
    let begin = || {
        let known = Arc::new(Known::default());
        known.keep_at(path.clone(), &wall.clock());
        known
    };
    let is_replaced = |known: Arc<Known>| {
        assert!(!known.contains(Instant::now(), net(9)));
        known.authenticated(&wall.clock(), net(1));
        known.write(&wall.clock());
        let known = begin();
        assert!(known.contains(Instant::now(), net(1)));
    };
    for damaged in [
        "",
        "libp2p-knock known prefixes 1\n",
        &good[..good.len() - 4],
        &good.replace(".9.", ".x."),
    ] {
        fs::write(&path, damaged).expect("written");
        is_replaced(begin());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(&path, &good).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).expect("set");
        is_replaced(begin());
        assert_eq!(
            fs::metadata(&path).expect("is there").permissions().mode() & 0o7777,
            0o600
        );
    }
    fs::write(&path, &good).expect("written");
    assert!(
        begin().contains(Instant::now(), net(9)),
        "so it was refused for what is wrong with it"
    );
}

#[test]
fn a_file_that_cannot_be_written_costs_nothing_else_and_is_tried_again() {
    let folder = tempfile::tempdir().expect("a directory");
    let (nowhere, wall) = (folder.path().join("nowhere"), Wall::at(TODAY));
    let path = nowhere.join("known");
    let known = Arc::new(Known::default());
    known.keep_at(path.clone(), &wall.clock());
    known.authenticated(&wall.clock(), net(1));
    known.write(&wall.clock());
    assert!(known.contains(Instant::now(), net(1)) && known.table().changed);
    fs::create_dir(&nowhere).expect("made");
    // Whatever comes in next has it tried again.
    known.authenticated(&wall.clock(), net(1));
    assert!(known.table().due.is_some());
    known.write(&wall.clock());
    assert!(path.exists() && !known.table().changed);
    // A directory in its place is left alone.
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("made");
    known.keep_at(path.clone(), &wall.clock());
    known.authenticated(&wall.clock(), net(2));
    known.write(&wall.clock());
    assert!(path.is_dir());
}

/// By the wall clock, which may be wrong either way; never for longer than its day by the clock
/// that cannot be set.
#[test]
fn a_prefix_expires_by_the_wall_clock_and_a_wrong_one_makes_none_live_for_ever() {
    let folder = tempfile::tempdir().expect("a directory");
    let (path, wall) = (folder.path().join("known"), Wall::at(TODAY));
    let begin = || {
        let known = Arc::new(Known::default());
        known.keep_at(path.clone(), &wall.clock());
        known
    };
    let now = Instant::now();
    let known = begin();
    known.authenticated(&wall.clock(), net(1));
    known.write(&wall.clock());
    for (seconds, is_known) in [(0, true), (DAY - 120, true), (DAY - 30, false), (100 * DAY, false)] {
        wall.set(TODAY + seconds);
        assert_eq!(begin().contains(now, net(1)), is_known, "{seconds}");
    }
    // A clock that starts in 1970 each time, and is put right later or not at all.
    let mut restarts = 0;
    loop {
        wall.set(5);
        let known = begin();
        if !known.contains(now, net(1)) {
            break;
        }
        assert!(!known.contains(now + Duration::from_secs(DAY), net(1)));
        restarts += 1;
    }
    assert_eq!(restarts, 23);
    // Nor does it make the file older than it is.
    assert!(
        fs::read_to_string(&path)
            .expect("is there")
            .contains(&format!("\nwritten {TODAY}\n"))
    );
    // A clock that was ahead as it was written, and is right again.
    wall.set(TODAY + 5000 * DAY);
    let known = begin();
    known.authenticated(&wall.clock(), net(1));
    known.write(&wall.clock());
    wall.set(TODAY);
    assert!(begin().contains(now, net(1)));
}
