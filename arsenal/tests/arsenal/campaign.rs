//! The programs, as a campaign starts them.

use arsenal::campaign::{Ran, Scenario, Tools, flood, scan};
use arsenal::target::{Kind, Settings, Target};
use libp2p_identity::Keypair;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn tools() -> Tools {
    Tools::in_directory(Path::new(env!("CARGO_BIN_EXE_target")).parent().unwrap()).unwrap()
}

#[test]
fn a_flood_of_insiders_is_measured_and_honest_dialers_get_through() {
    let scenario = Scenario {
        rate: 300.0,
        ..Scenario::insiders().smoke()
    };
    let report = flood(&tools(), &scenario).unwrap();
    assert!(report.rate > 30.0, "{report:?}");
    assert!(report.honest_within_three > 0.9 && report.p50_ms > 0.0, "{report:?}");
    assert!(report.half_open > 50 && report.open_files > 50, "{report:?}");
    assert!(
        report.listener_cpu_share > 0.0 && report.idle_p99_ms > 0.0,
        "{report:?}"
    );
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let missing = Tools::in_directory(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/target"), "{missing}");
}

#[tokio::test]
async fn scanners_get_no_byte_of_ours_and_those_that_are_missing_are_said_to_be() {
    let key = Keypair::generate_ed25519();
    let any = "127.0.0.1:0".parse().unwrap();
    let target = Target::start(Kind::Knock, &key, &[any], Settings::default())
        .await
        .unwrap();
    let scans = scan(target.address, Duration::from_secs(2)).await.unwrap();
    assert_eq!(scans.len(), 4);
    for scan in scans {
        assert_eq!(scan.bytes_answered, 0, "{scan:?}");
        // One that is there may need longer than this for its first connection.
        assert!(scan.ran != Ran::Missing || scan.connections == 0, "{scan:?}");
    }
}

#[test]
fn the_prober_prints_what_scripts_read() {
    let refused = Command::new(env!("CARGO_BIN_EXE_prober"))
        .args(["127.0.0.1:1", "--probes", "20", "--rate", "0", "--seed", "5"])
        .output()
        .unwrap();
    let text = String::from_utf8(refused.stdout).unwrap();
    for line in [
        "seed 5, ",
        "RESULT probe_not_connected 20",
        "RESULT probe_bytes_answered 0",
        "RESULT probe_outcome_classes 0",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
}
