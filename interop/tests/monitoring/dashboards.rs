//! The dashboards ask for what there is, in words that Prometheus understands, in panels that
//! Grafana draws.

use crate::files::{CRATES, dashboard, expressions, panels, path, rules, variables};
use crate::promql::{Selector, selectors};
use crate::promtool::promtool;
use crate::scrape::{Scrape, Wanted, first};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What Prometheus adds to every sample, and what a dashboard chooses by.
const FROM_OUTSIDE: [&str; 2] = ["job", "instance"];

/// Why `selector` finds nothing in `scrape`, if it does not.
fn missing(scrape: &Scrape, selector: &Selector) -> Option<String> {
    let chosen = |label: &str, value: &str| FROM_OUTSIDE.contains(&label) || value.contains('$');
    let matchers = selector.matchers.iter();
    let wanted = matchers.filter(|(label, _, value)| !chosen(label, value));
    let nothing: [Wanted<'_>; 0] = [];
    scrape.lacks(&selector.name, nothing).or_else(|| {
        wanted
            // Each alternative of an expression; one that is open at its end by its beginning.
            .flat_map(|(label, _, value)| value.split('|').map(move |one| (label, one)))
            .find_map(|(label, one)| {
                let is = |found: &str| match one.strip_suffix(".*") {
                    Some(beginning) => found.starts_with(beginning),
                    None => found == one,
                };
                let label: Wanted<'_> = (label.as_str(), &is);
                let why = scrape.lacks(&selector.name, [label])?;
                Some(format!("{why}: {one:?}"))
            })
    })
}

#[tokio::test]
async fn every_metric_that_a_panel_or_an_alert_names_is_in_a_first_scrape() {
    let scrape = first().await;
    let recorded: BTreeSet<String> = CRATES
        .into_iter()
        .flat_map(rules)
        .filter(|rule| rule.records)
        .map(|rule| rule.name)
        .collect();
    let mut looked_at = BTreeSet::new();
    for of in CRATES {
        let dashboard = dashboard(of);
        let asked = expressions(&dashboard).into_iter().chain(variables(&dashboard));
        let asked = asked.chain(rules(of).into_iter().map(|rule| rule.expression));
        for expression in asked {
            let selectors = selectors(&expression);
            let only_alerts = expression.starts_with("ALERTS{") || expression == "up";
            assert!(
                !selectors.is_empty() || only_alerts,
                "{of}: {expression} asks for nothing"
            );
            for selector in selectors {
                if selector.name.contains(':') {
                    assert!(recorded.contains(&selector.name), "{} is no rule", selector.name);
                } else if let Some(why) = missing(&scrape, &selector) {
                    panic!("{of}: {why}, in {expression}");
                }
                looked_at.insert(selector.name);
            }
        }
    }
    assert!(looked_at.len() >= 50, "{looked_at:?}");
}

#[tokio::test]
async fn a_metric_that_is_not_there_is_noticed_and_so_is_a_label() {
    let scrape = first().await;
    for (expression, there) in [
        ("libp2p_connmgr_denied_total", true),
        ("libp2p_connmgr_denied", false),
        ("libp2p_connmgr_denials_total", false),
        (r#"libp2p_connmgr_trims_total{reason="pressure"}"#, true),
        (r#"libp2p_connmgr_trims_total{reason="memory"}"#, false),
        (r#"libp2p_connmgr_trims_total{why="pressure"}"#, false),
        (r#"libp2p_gater_decisions_total{rule=~"cap_.*"}"#, true),
        (r#"libp2p_gater_decisions_total{rule=~"caps_.*"}"#, false),
        (r#"libp2p_connmgr_trims_total{reason=~"pressure|memory"}"#, false),
    ] {
        let [selector] = &selectors(expression)[..] else {
            panic!("{expression}")
        };
        assert_eq!(missing(&scrape, selector).is_none(), there, "{expression}");
    }
}

#[test]
fn prometheus_understands_every_expression_of_the_dashboards() {
    for of in CRATES {
        let expressions = expressions(&dashboard(of));
        assert!(expressions.len() >= 10, "{of}: {}", expressions.len());
        // Grafana puts in its variables before it asks.
        let rules: Vec<Value> = expressions
            .iter()
            .enumerate()
            .map(|(at, expression)| {
                let expression = expression.replace("$__rate_interval", "5m").replace("$__range", "6h");
                assert!(!expression.contains("$__"), "{expression}");
                json!({"record": format!("panel_{at}"), "expr": expression})
            })
            .collect();
        let file = json!({"groups": [{"name": of, "rules": rules}]});
        let path = std::env::temp_dir().join(format!("knock-dashboard-{of}-{}.yml", std::process::id()));
        std::fs::write(&path, file.to_string()).unwrap();
        let said = promtool(&["check", "rules", path.to_str().unwrap()], "");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(said, Ok(()), "{of}");
    }
}

#[test]
fn grafana_finds_in_every_panel_what_it_draws_it_by() {
    let mut uids = BTreeSet::new();
    for of in CRATES {
        let dashboard = dashboard(of);
        assert!(
            uids.insert(dashboard["uid"].to_string()),
            "{of}: a uid of another dashboard"
        );
        assert!(
            dashboard["title"].is_string() && dashboard["schemaVersion"].as_u64() >= Some(39),
            "{of}"
        );
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let names: BTreeSet<&str> = variables
            .iter()
            .filter_map(|variable| variable["name"].as_str())
            .collect();
        assert!(names.contains("datasource"), "{of}");
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{of}: {title}: an id of another panel"
            );
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{of}: {title} is beyond the right edge");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(places.insert((x, y)), "{of}: {title} lies over another panel");
                }
            }
            match panel["type"].as_str().unwrap() {
                "row" => continue,
                "timeseries" | "state-timeline" | "heatmap" | "stat" => {}
                other => panic!("{of}: {title}: what is a {other}?"),
            }
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{of}: {title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{of}: {title}");
            let targets = panel["targets"].as_array().unwrap();
            let refs: BTreeSet<&str> = targets.iter().filter_map(|target| target["refId"].as_str()).collect();
            assert!(!targets.is_empty() && refs.len() == targets.len(), "{of}: {title}");
            for target in targets {
                let expression = target["expr"].as_str().unwrap();
                // A variable that is not declared is asked for as it is written, and finds nothing.
                for variable in expression.split('$').skip(1) {
                    let end = variable.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    let variable = &variable[..end.unwrap_or(variable.len())];
                    assert!(
                        variable.starts_with("__") || names.contains(variable),
                        "{of}: ${variable}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_files_lie_beside_each_crate() {
    for of in CRATES {
        for file in ["README.md", "dashboard.json", "rules.yml", "rules.test.yml"] {
            assert!(path(of, file).is_file(), "{of}: {file}");
        }
    }
}
