//! What `gatekeeper` prints.

#[cfg(test)]
mod gatekeeper {
    use std::process::Command;

    /// The lines of the table: stage, who refuses, what the other has seen.
    fn table() -> Vec<[String; 3]> {
        let output = Command::new(env!("CARGO_BIN_EXE_gatekeeper")).output().unwrap();
        let (stdout, stderr) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(output.status.success(), "{stdout}\n{stderr}");
        let mut lines = stdout.lines().skip_while(|line| !line.contains("what the other"));
        lines.next();
        lines
            .map(|line| {
                let mut words = line.split_whitespace();
                let (stage, by) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
                [stage, by, words.collect::<Vec<_>>().join(" ")]
            })
            .collect()
    }

    #[test]
    fn help_is_help_and_names_each_stage_that_refuses() {
        let run = |arg: &str| {
            Command::new(env!("CARGO_BIN_EXE_gatekeeper"))
                .arg(arg)
                .output()
                .unwrap()
        };
        let help = run("--help");
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(help.status.success() && text.contains("Usage: gatekeeper"), "{text}");
        assert!(!text.contains("what the other has seen"), "the table was made: {text}");
        for stage in [
            "peer_dial",
            "addr_dial",
            "accept",
            "knock",
            "secured",
            "upgraded",
            "live",
        ] {
            assert!(text.contains(stage), "{stage}: {text}");
        }
        assert_eq!(run("--no-such-flag").status.code(), Some(2));
    }

    #[test]
    fn each_stage_refuses_once_and_later_ones_have_let_more_through() {
        let table = table();
        let saw = |stage: &str, by: &str| {
            let line = table.iter().find(|line| line[0] == stage && line[1] == by);
            line.unwrap_or_else(|| panic!("{stage}, {by}: {table:?}"))[2].as_str()
        };
        assert_eq!(table.len(), 10);
        assert_eq!(saw("peer_dial", "alice"), "nothing: no packet");
        assert_eq!(saw("addr_dial", "alice"), "nothing: no packet");
        assert!(saw("accept", "bob").starts_with("a TCP connection, and n"));
        assert!(saw("knock", "bob").starts_with("a TCP connection, and no answer to the knock"));
        for by in ["alice", "bob"] {
            assert!(saw("secured", by).contains("bytes"));
            assert!(saw("upgraded", by).contains("bytes"));
            assert!(saw("live", by).contains("it is told why, and for how long not to come back"));
        }
    }
}
