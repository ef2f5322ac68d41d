//! What the README says of itself.

const README: &str = include_str!("../../README.md");

/// The lines of the code blocks that readers see, block by block.
fn blocks() -> Vec<Vec<&'static str>> {
    let mut blocks = Vec::new();
    let mut block: Option<Vec<&str>> = None;
    for line in README.lines() {
        match (&mut block, line.starts_with("```")) {
            (None, true) => block = Some(Vec::new()),
            (Some(_), true) => blocks.extend(block.take()),
            (Some(lines), false) if !line.starts_with("# ") => lines.push(line),
            _ => {}
        }
    }
    blocks
}

/// Lines that a swarm without a gate would not have: every part of it goes by its name.
fn added(block: &[&str]) -> Vec<String> {
    let gate = |line: &&&str| line.contains("gate.") || line.contains("Gate::") || line.contains("Rules::new");
    block.iter().filter(gate).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn a_swarm_adopts_a_gate_in_five_lines_at_most() {
    let blocks = blocks();
    let swarms: Vec<_> = blocks
        .iter()
        .filter(|block| block.iter().any(|line| line.contains("SwarmBuilder::")))
        .collect();
    assert_eq!(swarms.len(), 3, "the knock, a stock stack, and with_tcp");
    for swarm in swarms {
        let added = added(swarm);
        assert!((2..=5).contains(&added.len()), "{added:#?}");
    }
    let kept = blocks
        .iter()
        .find(|block| block.iter().any(|line| line.contains(".with_tcp(")));
    assert!(added(kept.expect("one keeps with_tcp")).len() <= 3);
}

/// All Rust below `directory`, as one text.
fn sources(directory: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_list_names_is_there() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut code = String::new();
    sources(&here, &mut code);
    let list = std::fs::read_to_string(here.join("README.md")).unwrap();
    let names = list.split('`').skip(1).step_by(2);
    let mut count = 0;
    for name in names.filter(|name| name.matches('_').count() > 3 && !name.contains('…')) {
        assert!(code.contains(&format!("fn {name}(")), "{name}");
        count += 1;
    }
    assert!(count > 20, "{count}");
}
