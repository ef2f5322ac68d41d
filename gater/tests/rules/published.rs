//! Lists that others publish, put together and at the most that they may be.

use libp2p_gater::{ListError, ListFormat, NetworkList};

fn spamhaus(networks: &[&str]) -> String {
    let lines = networks.iter().map(|network| format!("{{\"cidr\":\"{network}\"}}\n"));
    let records = networks.len();
    let last = format!("{{\"type\":\"metadata\",\"records\":{records}}}\n");
    lines.chain([last]).collect()
}

#[test]
fn spamhaus_lists_put_together_are_one_list_and_a_part_cut_short_is_missed() {
    let four = spamhaus(&["192.0.2.0/24", "198.51.100.0/25", "203.0.113.0/24"]);
    let six = spamhaus(&["2001:db8::/32", "2001:db9::/32"]);
    for text in [format!("{four}{six}"), format!("{six}{four}"), format!("{four}{four}")] {
        let list = NetworkList::read(text.as_bytes(), None).unwrap_or_else(|error| panic!("{error}"));
        let networks = if text.contains("2001") { 5 } else { 3 };
        assert_eq!((list.len(), list.passed_over()), (networks, 2));
    }
    let of_four = |lines: usize| four.split_inclusive('\n').skip(lines).collect::<String>();
    for (text, said, found) in [
        (format!("{}{six}", of_four(1)), 5, 4),
        (format!("{six}{}", of_four(1)), 5, 4),
        (
            format!("{four}{}", six.split_inclusive('\n').next().expect("a line")),
            3,
            4,
        ),
    ] {
        let error = NetworkList::read(text.as_bytes(), None).expect_err("cut short");
        assert!(matches!(error, ListError::Count { said: s, found: f } if (s, f) == (said, found)));
        assert_eq!(
            error.to_string(),
            format!("its metadata says that it has {said} entries, found {found}: was it cut short?")
        );
    }
    // Not more than can be counted.
    let most = format!("{{\"type\":\"metadata\",\"records\":{}}}\n", u64::MAX);
    let error = NetworkList::read(format!("{four}{most}").as_bytes(), None).expect_err("too many");
    assert!(
        matches!(
            error,
            ListError::Count {
                said: u64::MAX,
                found: 3
            }
        ),
        "{error}"
    );
}

/// A longest list: so many lines of so many networks each, no two of them the same, and the bytes of
/// memory that reading it may take.
#[cfg(target_os = "linux")]
type Longest = (&'static str, u32, usize, fn(u32) -> String, usize);

#[cfg(target_os = "linux")]
const LONGEST: &[Longest] = &[
    ("IPv4, in one /8", 1 << 19, 8, |n| eight(10 << 24 | n << 5), 150_000_000),
    ("IPv4, in every /8", 1 << 19, 8, |n| eight(n << 13), 90_000_000),
    (
        "IPv6, in one /32",
        26_546,
        158,
        |n| format!("2001:db8:{n:x}::1-2001:db8:{n:x}:ffff:ffff:ffff:ffff:fffe\n"),
        450_000_000,
    ),
];

#[cfg(target_os = "linux")]
fn eight(at: u32) -> String {
    let ip = std::net::Ipv4Addr::from_bits;
    format!("{}-{}\n", ip(at | 1), ip(at | 30))
}

/// Lines that are made as they are read: a text in memory would count.
#[cfg(target_os = "linux")]
struct Lines(std::ops::Range<u32>, fn(u32) -> String, Vec<u8>);

#[cfg(target_os = "linux")]
impl std::io::Read for Lines {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        while self.2.len() < to.len() {
            let Some(n) = self.0.next() else { break };
            self.2.extend_from_slice((self.1)(n).as_bytes());
        }
        let read = to.len().min(self.2.len());
        to[..read].copy_from_slice(&self.2[..read]);
        self.2.drain(..read);
        Ok(read)
    }
}

/// Each in a process of its own, whose memory is that of the list.
#[cfg(target_os = "linux")]
#[test]
fn the_longest_lists_take_no_more_memory_than_is_said() {
    const READ: &str = "GATER_TEST_READ_THE_LONGEST";
    let bytes = |field: &str| -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("a status");
        let line = status.lines().find(|line| line.starts_with(field)).expect(field);
        let kilobytes = line.split_whitespace().nth(1).expect("a value");
        kilobytes.parse::<usize>().expect("a number") * 1024
    };
    if let Ok(which) = std::env::var(READ) {
        let (kind, lines, each, line, most) = LONGEST[which.parse::<usize>().expect("a number")];
        let before = bytes("VmRSS");
        let list = NetworkList::read(Lines(0..lines, line, Vec::new()), ListFormat::Plain);
        let list = list.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(list.len(), lines as usize * each);
        let (took, keeps) = (bytes("VmHWM") - before, bytes("VmRSS") - before);
        println!(
            "{kind}: {} networks, {took} bytes at most, {keeps} kept, of {most}",
            list.len()
        );
        assert!(took <= most);
        return;
    }
    for which in 0..LONGEST.len() {
        let name = "published::the_longest_lists_take_no_more_memory_than_is_said";
        let output = std::process::Command::new(crate::killed::this_program())
            .args(["--exact", name, "--nocapture"])
            .env(READ, which.to_string())
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}");
        assert!(output.status.success() && said.contains(" bytes at most, "), "{said}");
    }
}
