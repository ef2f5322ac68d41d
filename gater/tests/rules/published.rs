//! Lists that others publish, put together and at the most that they may be.

use libp2p_gater::{ListError, NetworkList};

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
