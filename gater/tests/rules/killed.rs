//! A process that is killed while it saves leaves the old rules or the new ones, and never a mixture.

use libp2p_gater::{Cidr, RuleError, Rules, Standing};
use libp2p_identity::PeerId;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the system says of a process that was killed.
const KILLED: Option<i32> = if cfg!(unix) { None } else { Some(1) };
const CHILD: &str = "GATER_TEST_SAVES_TO";
/// Enough that a good part of the time goes into writing.
const ENTRIES: u32 = 3000;

/// One of two sets of rules that have nothing in common, not even their number.
fn rules(second: bool) -> Rules {
    let (rules, from) = (Rules::new(), u32::from(second) << 24);
    let changed = rules.change(|change| {
        for n in 0..ENTRIES + u32::from(second) {
            change.block(Cidr::from(Ipv4Addr::from_bits(0x0a00_0000 + from + n)))?;
            change.block(peer(from + n))?;
        }
        change.set(if second { "second" } else { "first" }, Standing::Member, [peer(from)])
    });
    changed.expect("changed");
    rules
}

fn peer(n: u32) -> PeerId {
    let mut bytes = vec![0x12, 32];
    bytes.extend(n.to_be_bytes().repeat(8));
    PeerId::from_bytes(&bytes).expect("an id")
}

fn content(rules: &Rules) -> (BTreeSet<String>, Vec<String>) {
    let list = rules.list().iter().map(ToString::to_string).collect();
    (list, rules.sets().into_iter().map(|(name, ..)| name).collect())
}

/// This very program, even if a build has put another one in its place since it was started.
pub(crate) fn this_program() -> PathBuf {
    let same = Path::new("/proc/self/exe");
    match same.exists() {
        true => same.to_owned(),
        false => std::env::current_exe().expect("a program"),
    }
}

/// Saves one and the other, until it is killed.
fn save_for_ever(path: &Path) -> Result<(), RuleError> {
    let both = [rules(false), rules(true)];
    println!("begins");
    for at in (0..).map(|n| n % 2) {
        // Neither knows what the other has written.
        if both[at].overwrite(path).is_err() {
            break;
        }
    }
    panic!("it could not save");
}

/// `KILL_ROUNDS` says how often; 20 without it.
#[test]
fn killed_at_any_moment_while_saving_it_leaves_one_set_of_rules_or_the_other() {
    if let Some(path) = std::env::var_os(CHILD) {
        save_for_ever(Path::new(&path)).expect("killed before");
    }
    let rounds = std::env::var("KILL_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(20);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rules");
    let both = [content(&rules(false)), content(&rules(true))];
    let start = Instant::now();
    rules(false).save(&path).expect("saved");
    // Long enough for a few saves, on this machine and in this build.
    let span = 4 * u64::try_from(start.elapsed().as_micros()).expect("not for ever");
    let mut seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .subsec_nanos()
        | 1;
    let (mut found, mut left) = ([0, 0], 0);
    for round in 0..rounds {
        let mut child = Command::new(this_program())
            .args(["--exact", "--nocapture"])
            .arg("killed::killed_at_any_moment_while_saving_it_leaves_one_set_of_rules_or_the_other")
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let begins = output
            .lines()
            .map_while(Result::ok)
            .any(|line| line.ends_with("begins"));
        assert!(begins, "round {round}: the child says when it begins");
        // Any moment while it saves a few times: xorshift, busy, so that it is not rounded.
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        let (start, wait) = (Instant::now(), Duration::from_micros(u64::from(seed) % span));
        while start.elapsed() < wait {
            std::hint::spin_loop();
        }
        child.kill().expect("killed");
        // One that has ended by itself was killed at no moment at all.
        assert_eq!(child.wait().expect("waited for").code(), KILLED);
        let leftovers = std::fs::read_dir(directory.path()).expect("a list").count() - 1;
        left += leftovers;
        let loaded = Rules::load(&path).unwrap_or_else(|error| panic!("round {round}, {wait:?}: {error}"));
        let is = content(&loaded);
        let which = both.iter().position(|one| *one == is);
        found[which.unwrap_or_else(|| panic!("round {round}, {wait:?}: a mixture"))] += 1;
        let after = std::fs::read_dir(directory.path()).expect("a list").count();
        assert_eq!(
            after, 1,
            "round {round}: loading removes what a killed process has left"
        );
    }
    println!("{rounds} rounds: {found:?} of each, {left} times killed between creating and renaming");
}
