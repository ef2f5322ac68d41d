//! A small internet of network namespaces: two homes, each behind a router of its own, and a public host between them.
//!
//! ```text
//!   ada 10.1.0.2 ─── 10.1.0.1 ada-nat 198.51.100.2 ─── 198.51.100.1 ┐
//!                                                                   ├ public
//!   bob 10.2.0.2 ─── 10.2.0.1 bob-nat 203.0.113.2 ──── 203.0.113.1 ─┘
//! ```
//!
//! The public host forwards between the two routers. Each router masquerades what leaves its home, which keeps the
//! source port, and lets in only what conntrack knows as the reply to something that left before: from that very
//! address and port. Everything else from outside is counted and dropped, without a reset, which would end the other
//! end's attempt, and before conntrack keeps an entry for it, which would make the router choose another port.

use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsStr;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};

pub(crate) const PUBLIC: &str = "public";
pub(crate) const PUBLIC_IP: &str = "198.51.100.1";

/// What all our namespaces are called at the beginning; then come the process that made them and a number.
const PREFIX: &str = "knock-punch";

const RULES: &str = r#"
table ip home_router {
    counter unsolicited { }
    chain translate {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" masquerade
    }
    chain to_the_router {
        type filter hook input priority filter; policy accept;
        iifname "wan" ct state established,related accept
        iifname "wan" counter name "unsolicited" drop
    }
    chain through_the_router {
        type filter hook forward priority filter; policy drop;
        iifname "lan" accept
        ct state established,related accept
        counter name "unsolicited" drop
    }
}
"#;

/// In front of everything that [`RULES`] say.
const CUT: &str = r#"
table ip cut {
    counter swallowed { }
    chain through_the_router {
        type filter hook forward priority filter - 10; policy accept;
        counter name "swallowed" drop
    }
}
"#;

/// A home: the host `name` with the address `ip`, behind the router `router`, which the outside sees as `wan`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home {
    pub(crate) name: &'static str,
    pub(crate) router: &'static str,
    pub(crate) ip: &'static str,
    lan: &'static str,
    pub(crate) wan: &'static str,
    gateway: &'static str,
}

pub(crate) const ADA: Home = Home {
    name: "ada",
    router: "ada-nat",
    ip: "10.1.0.2",
    lan: "10.1.0.1",
    wan: "198.51.100.2",
    gateway: "198.51.100.1",
};

pub(crate) const BOB: Home = Home {
    name: "bob",
    router: "bob-nat",
    ip: "10.2.0.2",
    lan: "10.2.0.1",
    wan: "203.0.113.2",
    gateway: "203.0.113.1",
};

/// The namespaces of one test. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Internet {
    prefix: String,
}

impl Internet {
    /// Builds it; `None`, after one line on standard error that says why, where that cannot be done. With
    /// `KNOCK_TESTS_MUST_RUN=1` in the environment that is a failure instead.
    pub(crate) fn build() -> Result<Option<Self>> {
        static BUILT: Mutex<u32> = Mutex::new(0);
        // One at a time: the first namespace of all makes `ip` set up the folder for them.
        let mut number = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        let prefix = format!("{PREFIX}-{}-{number}", std::process::id());
        if let Some(reason) = missing(&prefix) {
            let required = std::env::var_os("KNOCK_TESTS_MUST_RUN").is_some_and(|value| value == "1");
            ensure!(!required, "KNOCK_TESTS_MUST_RUN is set, but {reason}");
            static SAID: Once = Once::new();
            // The macros' output is kept back by the test harness, and nobody would see that nothing was tested.
            SAID.call_once(|| drop(writeln!(std::io::stderr(), "internet: skipped: {reason}")));
            return Ok(None);
        }
        sweep()?;
        // From here on, a failure half-way removes what there is.
        let this = Self { prefix };
        this.add(PUBLIC)?;
        for home in [ADA, BOB] {
            this.add(home.name)?;
            this.add(home.router)?;
            this.link((home.name, "eth0", home.ip), (home.router, "lan", home.lan))?;
            this.link((home.router, "wan", home.wan), (PUBLIC, home.name, home.gateway))?;
            this.ip(home.name, &["route", "add", "default", "via", home.lan])?;
            this.ip(home.router, &["route", "add", "default", "via", home.gateway])?;
            this.forward(home.router)?;
            this.nft(home.router, RULES)?;
        }
        this.forward(PUBLIC)?;
        Ok(Some(this))
    }

    /// `program`, to be run on the host or router `place`. `ip` replaces itself with it: the child is the program.
    pub(crate) fn command(&self, place: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(place)]).arg(program);
        command
    }

    /// The router of `home` passes nothing on any more, in either direction, and tells nobody.
    pub(crate) fn cut(&self, home: Home) -> Result<()> {
        self.nft(home.router, CUT)
    }

    /// It passes things on again, as before.
    pub(crate) fn heal(&self, home: Home) -> Result<()> {
        self.nft(home.router, "delete table ip cut\n")
    }

    /// How many packets the router of `home` has swallowed while it was cut.
    pub(crate) fn swallowed(&self, home: Home) -> Result<u64> {
        self.counter(home, "cut", "swallowed")
    }

    /// How many packets the router of `home` has dropped because nobody inside had asked for them.
    pub(crate) fn dropped(&self, home: Home) -> Result<u64> {
        self.counter(home, "home_router", "unsolicited")
    }

    fn counter(&self, home: Home, table: &str, name: &str) -> Result<u64> {
        let arguments = ["list", "counter", "ip", table, name];
        let listing = run(self.command(home.router, "nft").args(arguments))?;
        let mut words = listing.split_whitespace().skip_while(|word| *word != "packets");
        words
            .nth(1)
            .and_then(|count| count.parse().ok())
            .with_context(|| format!("no counter: {listing}"))
    }

    /// The kernel's established TCP connections on the host `place`: local and remote address.
    pub(crate) fn established(&self, place: &str) -> Result<Vec<(SocketAddr, SocketAddr)>> {
        let table = run(self
            .command(place, "ss")
            .args(["-H", "-n", "-t", "-4", "state", "established"]))?;
        let lines = table.lines().map(|line| {
            let mut words = line.split_whitespace().skip(2);
            let mut address = || words.next().and_then(|word| word.parse().ok());
            address()
                .zip(address())
                .with_context(|| format!("not a socket: {line}"))
        });
        lines.collect()
    }

    fn name(&self, place: &str) -> String {
        format!("{}-{place}", self.prefix)
    }

    fn add(&self, place: &str) -> Result<()> {
        run(Command::new("ip").args(["netns", "add", &self.name(place)]))?;
        self.ip(place, &["link", "set", "lo", "up"])
    }

    fn ip(&self, place: &str, arguments: &[&str]) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.name(place)]).args(arguments)).map(drop)
    }

    /// A cable between two hosts. Both ends are made where they belong, so their names meet nobody else's.
    fn link(&self, one: (&str, &str, &str), two: (&str, &str, &str)) -> Result<()> {
        let peer = ["peer", "name", two.1, "netns", &self.name(two.0)];
        let mut add = vec!["link", "add", "name", one.1, "type", "veth"];
        add.extend(peer);
        self.ip(one.0, &add)?;
        for (place, interface, address) in [one, two] {
            self.ip(place, &["address", "add", &format!("{address}/24"), "dev", interface])?;
            self.ip(place, &["link", "set", interface, "up"])?;
        }
        Ok(())
    }

    fn forward(&self, place: &str) -> Result<()> {
        let write = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run(self.command(place, "sh").args(["-c", write])).map(drop)
    }

    fn nft(&self, router: &str, rules: &str) -> Result<()> {
        let mut nft = self
            .command(router, "nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        nft.stdin
            .take()
            .context("its input is piped")?
            .write_all(rules.as_bytes())?;
        let output = nft.wait_with_output()?;
        ensure!(
            output.status.success(),
            "nft on {router}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for place in [PUBLIC, ADA.name, ADA.router, BOB.name, BOB.router] {
            // Not there if building it failed before.
            let _ = run(Command::new("ip").args(["netns", "delete", &self.name(place)]));
        }
    }
}

/// Why no namespaces can be made here, if so.
fn missing(prefix: &str) -> Option<String> {
    if std::fs::metadata("/proc/self").map_or(true, |this| this.uid() != 0) {
        return Some("network namespaces need root".to_owned());
    }
    for (program, version) in [("ip", "-V"), ("nft", "--version"), ("ss", "-V")] {
        if run(Command::new(program).arg(version)).is_err() {
            return Some(format!("the program `{program}` is not installed"));
        }
    }
    let probe = format!("{prefix}-probe");
    if let Err(error) = run(Command::new("ip").args(["netns", "add", &probe])) {
        // Root in a container that was not given the right.
        return Some(format!("no network namespace can be made here: {error}"));
    }
    let _ = run(Command::new("ip").args(["netns", "delete", &probe]));
    None
}

/// Removes what runs left behind that were killed before they could. Their peers end by themselves, with their input.
fn sweep() -> Result<()> {
    // Where `ip` keeps them. Its own listing trips over one that is being made or removed meanwhile.
    let Ok(entries) = std::fs::read_dir("/var/run/netns") else {
        return Ok(());
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some((owner, _)) = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.split_once('-'))
        else {
            continue;
        };
        // The number alone may be another program's by now.
        let alive = std::fs::read(format!("/proc/{owner}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("internet"));
        if !alive {
            // Somebody else may be sweeping too.
            let _ = run(Command::new("ip").args(["netns", "delete"]).arg(&name));
        }
    }
    Ok(())
}

/// Runs `command` to its end and returns what it wrote.
fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
