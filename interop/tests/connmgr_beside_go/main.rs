//! The connection manager beside go-libp2p's, in random histories.
//!
//! One history is done to both managers, each with a clock that the test owns. After each operation
//! the test compares which peers are connected, protected and known, what tags come to, and what
//! trims have closed.
//!
//! - Where nothing that the README of `libp2p-connmgr` lists as a difference can play a part, both
//!   have to be equal.
//! - Where it can, each has to be what a naive manager is that goes its ways: the same for both,
//!   but for a switch for each line of that list.
//!
//! `CONNMGR_HISTORIES=2000 CONNMGR_OPERATIONS=200 cargo test -p interop --test connmgr_beside_go`
//! is the campaign. A history that fails is printed with its seed, and cut down to what it needs;
//! `CONNMGR_SEED=… CONNMGR_HISTORIES=1` does it again.

#[cfg(test)]
mod check;
#[cfg(test)]
mod go;
#[cfg(test)]
mod history;
// The model is the one that the crate's own tests have.
#[cfg(test)]
#[path = "../../../connmgr/src/tests/naive.rs"]
#[allow(dead_code, reason = "those need other parts")]
mod naive;
#[cfg(test)]
mod ours;

#[cfg(test)]
mod tests {
    use crate::check::{Outcome, check, check_go};
    use crate::go::Go;
    use crate::history::{History, Profile};
    use crate::naive::{Link, Op, Ways};
    use std::path::Path;

    fn go() -> Option<Go> {
        Go::start(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    fn number(name: &str, otherwise: usize) -> usize {
        let wanted = std::env::var(name).ok();
        wanted.map_or(otherwise, |text| {
            text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number"))
        })
    }

    /// Whether it fails, in one of some tries: where equals may go in any order, go-libp2p's choice
    /// is another each time.
    fn fails(history: &History, go: &mut Go) -> Option<String> {
        (0..3).find_map(|_| check(history, go).err())
    }

    /// Without every operation that the failure does not need.
    fn shortest(history: History, go: &mut Go) -> History {
        let mut shortest = history;
        let mut size = shortest.ops.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < shortest.ops.len() {
                let mut without = shortest.clone();
                without.ops.drain(at..(at + size).min(without.ops.len()));
                if fails(&without, go).is_some() {
                    shortest = without;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        shortest
    }

    fn run(profile: Profile) {
        let Some(mut go) = go() else { return };
        let (histories, operations) = (number("CONNMGR_HISTORIES", 60), number("CONNMGR_OPERATIONS", 100));
        let first = number("CONNMGR_SEED", 1);
        let mut all = Outcome::default();
        for seed in first..first + histories.div_ceil(2) {
            let history = History::random(profile, seed as u64, operations);
            match check(&history, &mut go) {
                Ok(outcome) => all += outcome,
                Err(why) => {
                    let shortest = shortest(history, &mut go);
                    let why = fails(&shortest, &mut go).unwrap_or(why);
                    panic!("seed {seed}, {profile:?}: {why}\n{shortest}");
                }
            }
        }
        println!("{profile:?}: {all}");
        // A comparison of managers that do nothing would show nothing.
        assert!(all.trims >= histories, "{all}");
        if profile == Profile::Plain {
            assert_eq!(all.equal, all.operations, "{all}");
        }
    }

    #[test]
    fn without_a_documented_difference_both_managers_are_equal() {
        run(Profile::Plain);
    }

    #[test]
    fn with_every_documented_difference_each_manager_goes_its_own_way_and_no_other() {
        run(Profile::Everything);
    }

    /// Each of them shows: a model of go-libp2p that does without one is refuted.
    #[test]
    fn every_documented_difference_is_one() {
        let Some(mut go) = go() else { return };
        type Without = fn(&mut Ways);
        let without: [(&str, Without); 11] = [
            ("emergency_half_way", |ways| ways.emergency_half_way = false),
            ("closing_counts", |ways| ways.closing_counts = false),
            ("background_unrecorded", |ways| ways.background_unrecorded = false),
            ("forgets_the_gone", |ways| ways.forgets_the_gone = false),
            ("early_tags_stay", |ways| ways.early_tags_stay = false),
            ("early_tags_age_protected", |ways| ways.early_tags_age_protected = false),
            ("info_collapses", |ways| ways.info_collapses = false),
            ("empty_records", |ways| ways.empty_records = false),
            ("dials_do_not_spare", |ways| ways.dials_do_not_spare = false),
            ("close_ends_the_background_only", |ways| {
                ways.close_ends_the_background_only = false;
            }),
            ("any_order_of_equals", |ways| ways.any_order_of_equals = false),
        ];
        for (name, change) in without {
            let mut ways = Ways::GO;
            change(&mut ways);
            let refuted = (1..100).any(|seed| {
                let history = History::random(Profile::Everything, seed, 100);
                check_go(&history, &mut go, ways).is_err()
            });
            assert!(refuted, "{name} makes no difference");
        }
    }

    /// The smallest history after which the background once never trimmed again.
    #[test]
    fn a_trim_that_finds_too_few_candidates_is_not_the_last() {
        let Some(mut go) = go() else { return };
        let inbound = Link {
            dialled: false,
            streams: Some(1),
        };
        let mut ops = vec![
            Op::Protect(1, 0),
            Op::Connect(1, inbound),
            Op::Connect(1, inbound),
            Op::Connect(5, inbound),
            Op::Wait(65),
        ];
        ops.extend((10..17).map(|peer| Op::Connect(peer, inbound)));
        ops.push(Op::Wait(3_600));
        let history = History::new(1, 3, 20, 3, ops);
        let outcome = check(&history, &mut go).unwrap_or_else(|why| panic!("{history}{why}"));
        assert_eq!((outcome.left_in_go, outcome.left_in_ours), (3, 3));
    }

    #[test]
    fn every_helper_that_uses_go_libp2p_uses_the_same_version() {
        let mut versions = Vec::new();
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("go")).unwrap() {
            let Ok(module) = std::fs::read_to_string(entry.unwrap().path().join("go.mod")) else {
                continue;
            };
            let line = module
                .lines()
                .find(|line| line.contains("github.com/libp2p/go-libp2p "));
            versions.extend(line.map(|line| line.split_whitespace().last().unwrap().to_owned()));
        }
        assert!(versions.len() >= 3, "{versions:?}");
        assert!(versions.iter().all(|version| version == "v0.52.0"), "{versions:?}");
    }
}
