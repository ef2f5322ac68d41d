//! Two hosts in network namespaces, and a cable between them that can be cut.

use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What all our namespaces are called at the beginning; then comes the process that made them.
const PREFIX: &str = "knock-keep";

/// One of the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Left,
    Right,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }

    pub(crate) fn ip(self) -> &'static str {
        match self {
            Self::Left => "10.9.0.1",
            Self::Right => "10.9.0.2",
        }
    }
}

/// Dropping it removes the hosts.
#[derive(Debug)]
pub(crate) struct Cable {
    prefix: String,
}

impl Cable {
    /// `None`, after one line on standard error that says why, where that cannot be done. With `KNOCK_TESTS_MUST_RUN=1` in
    /// the environment that is a failure instead.
    pub(crate) fn lay() -> Result<Option<Self>> {
        sweep();
        let this = Self {
            prefix: format!("{PREFIX}-{}", std::process::id()),
        };
        if let Err(reason) = this.build() {
            let required = std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some_and(|value| value == "1");
            ensure!(!required, "KNOCK_TESTS_MUST_RUN is set, but {reason:#}");
            // The macros' output is kept back by the test harness, and nobody would see that nothing was tested.
            writeln!(std::io::stderr(), "persistent: skipped: {reason:#}")?;
            return Ok(None);
        }
        Ok(Some(this))
    }

    fn build(&self) -> Result<()> {
        for end in [End::Left, End::Right] {
            run(Command::new("ip").args(["netns", "add", &self.host(end)]))?;
            // Everything the cut needs is tried before it is needed.
            run(self.command(end, "nft").args(["list", "ruleset"]))?;
        }
        let (left, right) = (self.host(End::Left), self.host(End::Right));
        let add = ["-n", &left, "link", "add", "name", "eth0", "type", "veth"];
        run(Command::new("ip")
            .args(add)
            .args(["peer", "name", "eth0", "netns", &right]))?;
        for end in [End::Left, End::Right] {
            let host = self.host(end);
            let ip = |arguments: &[&str]| run(Command::new("ip").args(["-n", &host]).args(arguments));
            ip(&["address", "add", &format!("{}/24", end.ip()), "dev", "eth0"])?;
            ip(&["link", "set", "lo", "up"])?;
            ip(&["link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// Both ends drop what arrives, without a sign: no carrier is lost and no reset is sent.
    pub(crate) fn cut(&self) -> Result<()> {
        const DROP: &str = "add table ip cut; add chain ip cut in { type filter hook input priority 0; policy drop; }";
        self.on_both(&[DROP])
    }

    pub(crate) fn mend(&self) -> Result<()> {
        self.on_both(&["delete table ip cut"])
    }

    /// `program`, to be run on the host at `end`. `ip` replaces itself with it: the child is the program.
    pub(crate) fn command(&self, end: End, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(end)]).arg(program);
        command
    }

    fn on_both(&self, rules: &[&str]) -> Result<()> {
        for end in [End::Left, End::Right] {
            run(self.command(end, "nft").args(rules))?;
        }
        Ok(())
    }

    fn host(&self, end: End) -> String {
        format!("{}-{}", self.prefix, end.name())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in [End::Left, End::Right] {
            // Not there if building it failed before.
            let _ = run(Command::new("ip").args(["netns", "delete", &self.host(end)]));
        }
    }
}

/// Removes what runs left behind that were killed before they could.
fn sweep() {
    let entries = std::fs::read_dir("/var/run/netns").into_iter().flatten().flatten();
    for name in entries.map(|entry| entry.file_name()) {
        let rest = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_prefix('-'));
        let Some((owner, _)) = rest.and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        // The number alone may be another program's by now.
        let alive = std::fs::read(format!("/proc/{owner}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("persistent"));
        if !alive {
            // Somebody else may be sweeping too.
            let _ = run(Command::new("ip").args(["netns", "delete"]).arg(&name));
        }
    }
}

/// Runs `command` to its end.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
