//! As much of PromQL as it takes to find what an expression asks for.

/// One series that is asked for: a name, and `label`, operator, `value` of each matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) matchers: Vec<(String, String, String)>,
}

/// What begins the name of a metric of ours, or of a rule.
const OURS: [&str; 6] = [
    "libp2p_connmgr_",
    "libp2p_gater_",
    "libp2p_knock_",
    "knock_host_",
    "ragep2p",
    "rage",
];

pub(crate) fn selectors(expression: &str) -> Vec<Selector> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find(is_name) {
        let from = &rest[at..];
        let end = from.find(|c| !is_name(c)).unwrap_or(from.len());
        let (name, behind) = from.split_at(end);
        rest = behind;
        let mut matchers = Vec::new();
        if let Some(inside) = behind.strip_prefix('{') {
            (matchers, rest) = braces(inside);
        }
        if OURS.iter().any(|prefix| name.starts_with(prefix)) {
            let name = name.to_owned();
            found.push(Selector { name, matchers });
        }
    }
    found
}

/// The matchers up to the closing brace, and what stands behind it.
fn braces(mut rest: &str) -> (Vec<(String, String, String)>, &str) {
    let mut matchers = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(behind) = rest.strip_prefix('}') {
            return (matchers, behind);
        }
        let (label, value) = rest.split_once('"').expect("a label and its value");
        let (value, behind) = value.split_once('"').expect("a closing quote");
        let operator = label.find(['=', '!']).expect("an operator");
        let (label, operator) = label.split_at(operator);
        matchers.push((label.trim().to_owned(), operator.trim().to_owned(), value.to_owned()));
        rest = behind;
    }
}

#[test]
fn selectors_are_found_with_their_matchers() {
    let expression = r#"sum by (job) (rate(libp2p_gater_a_total{stage="x",rule=~"cap_.*"}[5m])) / ragep2p:sent{} > 0"#;
    let matcher = |label: &str, operator: &str, value: &str| (label.to_owned(), operator.to_owned(), value.to_owned());
    assert_eq!(
        selectors(expression),
        [
            Selector {
                name: "libp2p_gater_a_total".to_owned(),
                matchers: vec![matcher("stage", "=", "x"), matcher("rule", "=~", "cap_.*")],
            },
            Selector {
                name: "ragep2p:sent".to_owned(),
                matchers: Vec::new(),
            },
        ]
    );
}
