//! What the fuzzers begin with, replayed.
#![cfg(feature = "internals")]

#[cfg(test)]
#[allow(unreachable_pub, reason = "public for the fuzzers, whose crate it is")]
#[path = "../../fuzz/src/announcement.rs"]
mod announcement;
#[cfg(test)]
#[allow(unreachable_pub, reason = "public for the fuzzers, whose crate it is")]
#[path = "../../fuzz/src/frames.rs"]
mod frames;

#[cfg(test)]
mod tests {
    fn replay(target: &str, run: fn(&[u8])) -> usize {
        let corpus = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let inputs = std::fs::read_dir(corpus)
            .unwrap()
            .map(|file| std::fs::read(file.unwrap().path()).unwrap());
        inputs.map(|input| run(&input)).count()
    }

    #[test]
    fn the_corpus_of_frames_holds() {
        assert!(replay("frames", super::frames::run) >= 10);
    }

    #[test]
    fn the_corpus_of_announcements_holds() {
        assert!(replay("announcement", super::announcement::run) >= 80);
    }
}
