//! What the fuzzer of the knock has found, replayed: every input against the model, and all that can be refused.
#![cfg(feature = "internals")]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "of the model some things are for the fuzzer alone"
)]
#[path = "../fuzz/src/pre_auth/mod.rs"]
mod pre_auth;

#[cfg(test)]
mod tests {
    use libp2p_knock::Refusal;
    use libp2p_knock::internals::Verdict;
    use std::collections::BTreeMap;

    /// One for each variant.
    fn name(refusal: Refusal) -> &'static str {
        match refusal {
            Refusal::Version(_) => "Version",
            Refusal::Box => "Box",
            Refusal::Replayed => "Replayed",
            Refusal::Budget => "Budget",
            Refusal::Noise => "Noise",
            Refusal::Reserved => "Reserved",
            Refusal::Mode(_) => "Mode",
            Refusal::FlightLength(_) => "FlightLength",
            Refusal::Time => "Time",
            Refusal::Floor => "Floor",
            Refusal::SelfDial => "SelfDial",
            Refusal::Key => "Key",
            Refusal::Signature => "Signature",
            Refusal::NotConfigured => "NotConfigured",
            Refusal::Flight => "Flight",
            Refusal::Hello => "Hello",
            Refusal::TlsVersion => "TlsVersion",
            Refusal::KeyShare => "KeyShare",
            other => panic!("{other:?} is new: name it, and let the fuzzer reach it"),
        }
    }

    const REFUSALS: usize = 18;

    #[test]
    fn the_corpus_reaches_every_refusal() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/pre_auth");
        let mut reached = BTreeMap::<&str, usize>::new();
        for file in std::fs::read_dir(corpus).expect("the corpus") {
            let input = std::fs::read(file.expect("a file").path()).expect("readable");
            for verdict in super::pre_auth::run(&input) {
                let name = match verdict {
                    Verdict::Refused(refusal) => name(refusal),
                    Verdict::Answered(_) => "(answered)",
                    Verdict::Denied => "(denied)",
                    Verdict::Waiting => "(waiting)",
                };
                *reached.entry(name).or_default() += 1;
            }
        }
        println!("{reached:?}");
        assert_eq!(reached.len(), REFUSALS + 3, "{reached:?}");
    }
}
