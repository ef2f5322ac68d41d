//! The rules in `monitoring/`, by Prometheus' own tools, and a real Prometheus that scrapes running hosts.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.
#![cfg(feature = "metrics")]

#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod first_scrape;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod rageping;
#[cfg(test)]
mod rules;

#[cfg(test)]
mod common {
    use std::path::PathBuf;
    use std::process::Command;

    /// Whether `program` is there. If not, a line says so.
    ///
    /// # Panics
    ///
    /// Instead of returning `false`, where `KNOCK_TESTS_MUST_RUN` is set: a test that skips would pass unseen.
    pub(crate) fn there_is(program: &str) -> bool {
        let found = Command::new(program).arg("--version").output();
        match found {
            Ok(output) if output.status.success() => true,
            _ if std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some() => {
                panic!("no {program}: Debian's package is prometheus")
            }
            _ => {
                println!("skipped: no {program}; Debian's package is prometheus");
                false
            }
        }
    }

    pub(crate) fn monitoring(file: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("monitoring").join(file)
    }
}
