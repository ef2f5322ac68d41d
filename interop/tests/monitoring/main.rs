//! Alert rules and dashboards of all crates, by Prometheus' own tools and against what the crates
//! really register.
//!
//! `cfg(test)` is always on here. It tells clippy that the helpers are test code too, and may unwrap.

#[cfg(test)]
mod dashboards;
#[cfg(test)]
mod files;
#[cfg(test)]
mod promql;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod scrape;

#[cfg(test)]
mod promtool {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// What promtool says against it, or nothing; nothing as well, after a line that says so, where
    /// there is no promtool.
    ///
    /// # Panics
    ///
    /// If there is none and `KNOCK_TESTS_MUST_RUN` is set: a test that skips would pass unseen.
    pub(crate) fn promtool(arguments: &[&str], input: &str) -> Result<(), String> {
        let child = Command::new("promtool")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(_) if std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some() => {
                panic!("no promtool: Debian's package is prometheus")
            }
            Err(_) => {
                println!("skipped: no promtool; Debian's package is prometheus");
                return Ok(());
            }
        };
        // One that does not read its input closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(said) }
    }
}
