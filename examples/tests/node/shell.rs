//! What the program prints for a shell, given to one.

use crate::commands::{ANY_PORT, write_private};
use crate::process::{Dir, Running, output, pasted, stderr, stdout};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

/// Characters that shells read as theirs, unless they are quoted.
const AWKWARD: &str = "it's a $HOME; \"place\" & more";

#[test]
fn the_command_for_a_second_terminal_can_be_pasted_in_any_directory() {
    let dir = Dir::new("paste");
    let place = dir.path().join(AWKWARD);
    fs::create_dir(&place).unwrap();
    let program = place.join("node");
    if fs::hard_link(env!("CARGO_BIN_EXE_node"), &program).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_node"), &program).unwrap();
    }
    let secret = "07".repeat(32);
    write_private(
        &place.join("net work"),
        format!("name: test\nsecret: {secret}\n").as_bytes(),
    );

    let mut first = Command::new(&program);
    first
        .current_dir(&place)
        .args(["run", "--network", "net work"])
        .args(ANY_PORT)
        .env_remove("RUST_LOG");
    let mut first = Running::spawn(&place, first);
    let line = first.expect(" --key second.key ");
    let mut second = Running::spawn(dir.path(), pasted(dir.path(), line.trim()));
    second.expect(" connected, to ");
    first.expect(" connected, from ");
}

#[test]
fn what_mends_a_key_file_can_be_pasted() {
    let dir = Dir::new("mend");
    let key = format!("{}.key", AWKWARD.replace('/', " "));
    Running::start(dir.path(), &[&ANY_PORT[..], &["--key", &key]].concat()).kill();
    fs::set_permissions(dir.path().join(&key), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = output(dir.path(), &["run", "--key", &key]);
    assert!(!refused.status.success());
    let said = stderr(&refused);
    let (_, line) = said.trim().split_once("To mend the mode: ").unwrap();
    assert!(pasted(dir.path(), line).status().unwrap().success(), "{line}");
    Running::start(dir.path(), &[&ANY_PORT[..], &["--key", &key]].concat());
}

#[test]
fn bash_completes_commands_and_flags_from_the_script_that_the_program_prints() {
    let dir = Dir::new("completions");
    let script = output(dir.path(), &["completions", "bash"]);
    assert!(script.status.success(), "{}", stderr(&script));
    fs::write(dir.path().join("node.bash"), &script.stdout).unwrap();
    for (words, expected) in [
        ("node pro", "probe"),
        ("node ru", "run"),
        ("node run --max-c", "--max-connections"),
        ("node probe --js", "--json"),
    ] {
        let asked = format!(
            "set -eu; source ./node.bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _node node \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        let answered = bash
            .current_dir(dir.path())
            .args(["--norc", "-c", &asked])
            .output()
            .unwrap();
        assert_eq!(stderr(&answered), "", "{words}");
        assert_eq!(stdout(&answered).trim(), expected, "{words}");
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = output(dir.path(), &["completions", shell]);
        assert!(script.status.success() && stdout(&script).contains("probe"), "{shell}");
    }
}
