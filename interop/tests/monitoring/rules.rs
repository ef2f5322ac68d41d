//! What promtool says of the rules, and that nothing is left untested.

use crate::files::{CRATES, path, read, rules};
use crate::promql::selectors;
use crate::promtool::promtool;
use crate::scrape::first;

#[test]
fn promtool_accepts_the_rules() {
    for of in CRATES {
        let path = path(of, "rules.yml");
        assert_eq!(
            promtool(&["check", "rules", path.to_str().unwrap()], ""),
            Ok(()),
            "{of}"
        );
    }
}

#[test]
fn every_alert_fires_on_its_fault_and_not_on_a_healthy_node() {
    for of in CRATES {
        let path = path(of, "rules.test.yml");
        assert_eq!(promtool(&["test", "rules", path.to_str().unwrap()], ""), Ok(()), "{of}");
        // Neither is left out.
        let text = read(of, "rules.test.yml");
        let mut alerts = 0;
        for rule in rules(of).into_iter().filter(|rule| !rule.records) {
            alerts += 1;
            let name = &rule.name;
            let silent = text
                .lines()
                .any(|line| line.contains(&format!("{{alertname: {name}, ")) && line.ends_with("exp_alerts: []}"));
            assert!(silent, "{of}: {name} is not tested on a healthy node");
            let fires = text.split("- alertname: ").skip(1).any(|case| {
                let case = case.split("- {alertname").next().unwrap();
                case.starts_with(&format!("{name}\n")) && case.contains("exp_labels: {")
            });
            assert!(fires, "{of}: {name} is not tested on its fault");
        }
        assert!(alerts >= 5, "{of}: {alerts}");
    }
}

#[tokio::test]
async fn the_series_of_the_tests_are_some_that_are_rendered() {
    let scrape = first().await;
    for of in CRATES {
        let text = read(of, "rules.test.yml");
        let series = text.lines().filter_map(|line| line.trim().strip_prefix("- series: "));
        for series in series {
            let [selector] = &selectors(series)[..] else {
                panic!("{of}: {series}")
            };
            // Which node, and which peers, are chosen freely.
            let free = ["job", "instance", "peer_id", "remote_peer_id"];
            let labels = selector.matchers.iter();
            let labels = labels.filter(|(label, ..)| !free.contains(&label.as_str()));
            let labels: Vec<_> = labels
                .map(|(label, _, value)| (label.as_str(), move |found: &str| found == value))
                .collect();
            let labels = labels.iter().map(|(label, is)| (*label, is as &dyn Fn(&str) -> bool));
            assert_eq!(scrape.lacks(&selector.name, labels), None, "{of}: {series}");
        }
    }
}
