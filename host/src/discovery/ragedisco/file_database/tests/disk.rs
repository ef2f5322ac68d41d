//! What becomes of the file when it is a link, when it is another's, when the disk is full, and
//! when the process is killed.

use super::*;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = names
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// How many announcements there are in the file.
fn count(path: &Path) -> usize {
    FileDatabase::open(path).unwrap().lock().len()
}

#[test]
fn a_symbolic_link_stays_one_and_what_it_leads_to_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let at = |name: &str| directory.path().join(name);
    // To a file in another directory, by a relative path; over another link; and to one that is not
    // there yet.
    symlink("volume/announcements", at("link")).unwrap();
    symlink("link", at("link to a link")).unwrap();
    symlink(volume.join("later"), at("dangling")).unwrap();
    for (name, file) in [
        ("link", "announcements"),
        ("link to a link", "announcements"),
        ("dangling", "later"),
    ] {
        let database = FileDatabase::open(at(name)).unwrap();
        for counter in 1..3 {
            let before = database.lock().len();
            database.store(&[announcement(before as u8 + 1, counter)]).unwrap();
            assert_eq!(count(&volume.join(file)), before + 1, "{name}");
        }
        assert!(fs::symlink_metadata(at(name)).unwrap().is_symlink(), "{name}");
        assert_eq!(count(&at(name)), count(&volume.join(file)));
    }
    assert_eq!(
        names(directory.path()),
        ["dangling", "link", "link to a link", "volume"]
    );
    assert_eq!(
        names(&volume),
        ["announcements", "later"],
        "nothing is left beside them"
    );
    // A link that leads to itself is an error, and stays.
    symlink("loop", at("loop")).unwrap();
    let error = FileDatabase::open(at("loop")).unwrap_err();
    assert!(matches!(error, FileDatabaseError::Io { .. }), "{error:?}");
    let error = replace::replace(&at("loop"), b"x").unwrap_err();
    assert!(matches!(error, FileDatabaseError::Io { .. }), "{error:?}");
    assert!(fs::symlink_metadata(at("loop")).unwrap().is_symlink());
}

#[test]
fn a_new_file_is_its_owners_alone_and_an_old_one_keeps_its_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    let database = FileDatabase::open(&path).unwrap();
    database.store(&[announcement(1, 1)]).unwrap();
    assert_eq!(mode(&path), 0o600);
    for (counter, of_old) in (2..).zip([0o644, 0o640, 0o600, 0o400, 0o664]) {
        fs::set_permissions(&path, Permissions::from_mode(of_old)).unwrap();
        database.store(&[announcement(1, counter)]).unwrap();
        assert_eq!(mode(&path), of_old, "{of_old:o}");
    }
}

#[test]
fn what_is_no_file_is_not_replaced_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    let database = FileDatabase::open(&path).unwrap();
    database.store(&[announcement(1, 1)]).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = database.store(&[announcement(1, 2)]).unwrap_err();
    assert!(error.to_string().contains("cannot replace"), "{error}");
    fs::remove_dir(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    database.store(&[announcement(1, 2)]).unwrap_err();
    assert!(!fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(names(directory.path()), ["announcements"]);
}

/// Whether this process is root's. If not, a line says so.
///
/// # Panics
///
/// Instead of returning `false`, where `KNOCK_TESTS_MUST_RUN` is set: a test that skips would pass
/// unseen.
fn is_root(what: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let root = fs::metadata(directory.path()).unwrap().uid() == 0;
    if !root {
        assert!(std::env::var_os("KNOCK_TESTS_MUST_RUN").is_none(), "{what} needs root");
        println!("skipped: {what} needs root");
    }
    root
}

#[test]
fn a_file_keeps_its_owner() {
    if !is_root("giving a file to another") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    let database = FileDatabase::open(&path).unwrap();
    database.store(&[announcement(1, 1)]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(12_345), Some(54_321)).unwrap();
    database.store(&[announcement(1, 2)]).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.uid(), after.gid(), mode(&path)), (12_345, 54_321, 0o640));
}

/// This very program, running one test, as a child that finds `path` in its environment.
fn child(test: &str, path: &Path) -> Command {
    // Even if a build has put another one in its place since it was started.
    let same = Path::new("/proc/self/exe");
    let program = if same.exists() {
        same.to_owned()
    } else {
        std::env::current_exe().unwrap()
    };
    let mut child = Command::new(program);
    let module = module_path!().split_once("::").unwrap().1;
    child.args(["--exact", "--nocapture"]).arg(format!("{module}::{test}"));
    child.env(CHILD, path);
    child
}

const CHILD: &str = "KNOCK_HOST_TEST_STORES_TO";

#[test]
fn a_directory_that_cannot_be_written_to_is_an_error_and_the_old_file_stays() {
    let test = "a_directory_that_cannot_be_written_to_is_an_error_and_the_old_file_stays";
    if let Some(path) = std::env::var_os(CHILD) {
        let path = PathBuf::from(path);
        let database = FileDatabase::open(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let error = database.store(&[announcement(1, 2)]).unwrap_err();
        assert!(error.to_string().contains("cannot create"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(database.read(&[announcement(1, 0).0]).unwrap(), [announcement(1, 1)]);
        println!("as it should");
        return;
    }
    // Root may write everywhere, so it starts the child as another user.
    let root = is_root("writing as another user");
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let path = inside.join("announcements");
    FileDatabase::open(&path).unwrap().store(&[announcement(1, 1)]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&inside, Permissions::from_mode(0o555)).unwrap();
    let mut child = child(test, &path);
    if root {
        // The test program may be in a directory that the other user cannot enter.
        let copy = directory.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
        let arguments: Vec<_> = child.get_args().map(ToOwned::to_owned).collect();
        child = Command::new(copy);
        child.args(arguments).env(CHILD, &path).uid(65_534).gid(65_534);
        child.current_dir("/");
    }
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("as it should"), "{output:?}");
    fs::set_permissions(&inside, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(names(&inside), ["announcements"]);
}

#[test]
fn a_disk_that_is_full_is_an_error_and_the_old_file_stays_whole() {
    let test = "a_disk_that_is_full_is_an_error_and_the_old_file_stays_whole";
    if let Some(path) = std::env::var_os(CHILD) {
        let path = PathBuf::from(path);
        let database = FileDatabase::open(&path).unwrap();
        let mut stored = 0;
        let error = loop {
            match database.store(&[announcement(stored + 1, 1)]) {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert!(stored > 1, "{stored}");
        assert_eq!(count(&path), usize::from(stored), "the last one that was stored");
        assert_eq!(
            database.lock().len(),
            usize::from(stored),
            "nor does memory differ from it"
        );
        assert_eq!(
            names(path.parent().unwrap()),
            ["announcements"],
            "what was begun is removed"
        );
        println!("as it should");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    // A file may have 4 KiB and no more, as if there were no more: the write fails in the middle.
    let child = child(test, &path);
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(child.get_args())
        .env(CHILD, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("as it should"), "{output:?}");
}

/// One of two sets of announcements that have nothing in common, not even their number.
fn set(second: bool) -> Vec<(PeerId, Vec<u8>)> {
    let from = if second { 101 } else { 1 };
    (from..from + 40 + u8::from(second))
        .map(|seed| announcement(seed, u64::from(second)))
        .collect()
}

/// Replaces one by the other, until it is killed.
fn replace_for_ever(path: &Path) -> ! {
    let both = [false, true].map(|second| render(&set(second).into_iter().collect()));
    println!("begins");
    for at in (0..).map(|n| n % 2) {
        replace::replace(path, both[at].as_bytes()).unwrap();
    }
    unreachable!()
}

/// `KILL_ROUNDS` says how often; 20 without it.
#[test]
fn killed_at_any_moment_while_it_stores_it_leaves_the_old_file_or_the_new_one() {
    let test = "killed_at_any_moment_while_it_stores_it_leaves_the_old_file_or_the_new_one";
    if let Some(path) = std::env::var_os(CHILD) {
        replace_for_ever(Path::new(&path));
    }
    let rounds = std::env::var("KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("announcements");
    let start = Instant::now();
    FileDatabase::open(&path).unwrap().store(&set(false)).unwrap();
    // Long enough for a few, on this machine and in this build.
    let span = 4 * u64::try_from(start.elapsed().as_micros()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut seed, mut found) = (now.subsec_nanos() | 1, [0, 0]);
    for round in 0..rounds.unwrap_or(20) {
        let mut child = child(test, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let begins = output
            .lines()
            .map_while(Result::ok)
            .any(|line| line.ends_with("begins"));
        assert!(begins, "round {round}: the child says when it begins");
        // Any moment while it stores a few times: xorshift, busy, so that it is not rounded.
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        let (start, wait) = (Instant::now(), Duration::from_micros(u64::from(seed) % span));
        while start.elapsed() < wait {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        let known = FileDatabase::open(&path).unwrap_or_else(|error| panic!("round {round}, {wait:?}: {error:?}"));
        let known: Vec<_> = known.lock().clone().into_iter().collect();
        let which = [false, true].iter().position(|second| {
            let mut one = set(*second);
            one.sort();
            one == known
        });
        found[which.unwrap_or_else(|| panic!("round {round}, {wait:?}: a mixture"))] += 1;
        assert_eq!(
            names(directory.path()),
            ["announcements"],
            "round {round}: opening removes what a killed process has left"
        );
    }
    println!("{found:?} of each");
}
