//! What promtool says of the rules.

use crate::common::{monitoring, there_is};
use std::process::Command;

fn promtool(arguments: [&str; 3]) {
    let output = Command::new("promtool").args(arguments).output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}{stderr}");
}

#[test]
fn promtool_accepts_the_rules() {
    if there_is("promtool") {
        promtool(["check", "rules", monitoring("rules.yml").to_str().unwrap()]);
    }
}

#[test]
fn every_alert_fires_on_its_fault_and_on_nothing_else() {
    if there_is("promtool") {
        promtool(["test", "rules", monitoring("rules.test.yml").to_str().unwrap()]);
    }
}
