//! Messages of ragedisco, raw and changed ones of the Go original.

use knock_host::discovery::ragedisco::{Announcement, MAX_ADDRESSES, MAX_ORACLES, Message};
use std::sync::LazyLock;

/// What Go sent: an announcement, and a reconcile of one.
static SENT: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [
        "12790a113139382e35312e3130302e373a3636393010011a208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f\
         5c2240b0c9b0b25a3ae01c8c6eadae4396e8dfa0fe02aae96d0f1831296266b514069a3ae9a5bca34fec4bc9ef205090bed4dcb8dbd802d0\
         3a809f9ff8808b7da72a0c",
        "1a83010a80010a0e3132372e302e302e313a363639300a0a5b3a3a315d3a363639301a208a88e3dd7409f195fd52db2d3cba5d72ca6709bf\
         1d94121bf3748801b40f6f5c224092227f77c5cff267d238c282865fc5e0cf405068e67fc6e8b032542ab3cb0b8960c409937584009853f9\
         43bb3b5fb17653a5b710ddf6fc2af47da5ea01f44f09",
    ]
    .map(|digits| hex::decode(digits).expect("hexadecimal digits"))
});

/// An even first byte: the rest is a message. An odd one: the rest changes one of Go's, three bytes a change.
///
/// # Panics
///
/// If something is taken that must not be, or is not written as it was read.
pub fn run(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    if first % 2 == 0 {
        check(rest, false);
        return;
    }
    let mut changed = SENT[usize::from(first / 2 % 2)].clone();
    for change in rest.chunks_exact(3) {
        let at = usize::from(change[0]) % (changed.len() + 1);
        match change[1] % 4 {
            0 if at < changed.len() => changed[at] = change[2],
            1 => changed.insert(at, change[2]),
            2 if at < changed.len() => _ = changed.remove(at),
            3 if at < changed.len() => changed[at] ^= 1 << (change[2] % 8),
            _ => {}
        }
    }
    check(&changed, true);
}

/// With `of_go`, nobody but Go has signed anything in it.
fn check(bytes: &[u8], of_go: bool) {
    let Ok(message) = Message::decode(bytes) else {
        return;
    };
    // Written again it may be shorter, as fields that nobody knows are left out, but it says the same.
    let written = message.encode();
    assert_eq!(Message::decode(&written).as_ref(), Ok(&message));
    let members = match message {
        Message::Announcement(one) => vec![one],
        Message::Reconcile(all) => all,
    };
    assert!(members.len() <= MAX_ORACLES);
    for member in members {
        let addresses = member.addresses().count();
        assert!((1..=MAX_ADDRESSES).contains(&addresses));
        assert_eq!(member.multiaddrs().count(), addresses, "each of them can be dialled");
        assert_eq!(Announcement::decode(&member.encode()).as_ref(), Ok(&member));
        if member.verify().is_ok() && of_go {
            let text: Vec<&str> = member.addresses().collect();
            let signed = [
                (vec!["198.51.100.7:6690"], 1),
                (vec!["127.0.0.1:6690", "[::1]:6690"], 0),
            ];
            assert!(signed.contains(&(text, member.counter())));
        }
    }
}
