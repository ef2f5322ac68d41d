//! The vectors of the sealed knock, derived a second time: by a Go program with Go's libraries (`go/knock-v3`), from the
//! inputs alone.

use std::path::Path;
use std::process::Command;

#[test]
fn go_derives_every_value_of_the_vectors() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("knock-v3");
    let built = Command::new("go")
        .current_dir(here.join("go/knock-v3"))
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(".")
        .output();
    let problem = match &built {
        Ok(built) if built.status.success() => None,
        Ok(built) => Some(String::from_utf8_lossy(&built.stderr).into_owned()),
        Err(error) => Some(format!("Go 1.24 or newer is needed: {error}")),
    };
    if let Some(problem) = problem {
        assert!(std::env::var_os("KNOCK_TESTS_MUST_RUN").is_none(), "{problem}");
        println!("skipped: no Go to derive the vectors with: {problem}");
        return;
    }

    let vectors = here.join("../transport/tests/vectors/knock-v3.json");
    let ran = Command::new(&program).arg(vectors).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said, "ok open\nok private\n");
}
