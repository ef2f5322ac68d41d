//! What the rules may be called that say no: labels of the metrics.

use crate::verdict::Stage;

const JUDGED: [&str; 10] = [
    "admit_known_addresses",
    "admit_members",
    "block",
    "block_list",
    "block_network",
    "block_peer",
    "block_set",
    "malformed_address",
    "refuse_names",
    "require_knock",
];
const RATE: &str = "rate";
const CAPS: [&str; 9] = [
    "cap_inbound",
    "cap_outbound",
    "cap_pending_inbound",
    "cap_pending_outbound",
    "cap_per_ip",
    "cap_per_peer",
    "cap_per_prefix",
    "cap_total",
    "cap_transport",
];

/// Those that may say no at `stage`. What is there already meets no cap, and a rate is for what
/// begins.
pub(super) fn at(stage: Stage) -> impl Iterator<Item = &'static str> {
    let begins = matches!(stage, Stage::Accept | Stage::AddrDial);
    let caps = if stage == Stage::Live { &[][..] } else { &CAPS };
    JUDGED
        .into_iter()
        .chain(begins.then_some(RATE))
        .chain(caps.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_that_the_policy_names_is_listed() {
        let policy = include_str!("policy.rs");
        let is_name = |text: &&str| {
            text.starts_with(char::is_alphabetic) && !text.contains(|c: char| c != '_' && !c.is_ascii_lowercase())
        };
        // What stands between quotes: every other part.
        let named: Vec<&str> = policy.split('"').skip(1).step_by(2).filter(is_name).collect();
        assert!(named.len() >= 18, "{named:?}");
        let listed: Vec<&str> = Stage::ALL.into_iter().flat_map(at).collect();
        for name in named {
            assert!(listed.contains(&name), "{name}");
        }
    }
}
