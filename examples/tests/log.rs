//! What a program logs that is asked to as its help says.

use std::process::Command;

#[test]
fn the_filter_that_the_help_names_shows_each_step_of_a_dial_and_what_a_listener_makes_of_it() {
    let node = || Command::new(env!("CARGO_BIN_EXE_node"));
    let help = String::from_utf8(node().arg("--help").output().unwrap().stdout).unwrap();
    let mut words = help.split_whitespace();
    let filter = words.find_map(|word| word.strip_prefix("RUST_LOG="));
    let filter = filter.expect("the help names a filter");
    let mut demo = node();
    demo.arg("demo").current_dir(env!("CARGO_TARGET_TMPDIR"));
    let output = demo.env("RUST_LOG", filter).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    for step in [
        "connecting",
        "knocking",
        "answered, TLS is done",
        "dialled",
        "a knock is answered",
        "a socket is not answered",
    ] {
        assert!(log.contains(step), "no {step:?} in:\n{log}");
    }
}
