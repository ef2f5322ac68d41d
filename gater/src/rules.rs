//! The ready-made policy.

mod change;
mod cidr;
mod counts;
mod current;
mod denials;
mod expired;
mod explain;
mod facts;
mod file;
mod import;
mod key;
mod limits;
mod line;
mod lists;
mod networks;
mod peers;
mod policy;
mod print;
mod rates;
mod rule;
mod sets;
mod sharded;
mod snapshot;
mod text;
mod time;
mod turns;
mod warning;
mod writer;

pub use change::{Change, RuleError};
pub use cidr::{Cidr, CidrError};
pub use file::{Edits, FileError, SaveError};
pub use limits::{Caps, Prefixes, Rate};
pub use lists::{ListError, ListFormat, NetworkList};
pub use rule::{Rule, Subject};
pub use sets::{Admission, Member, Standing};
pub use text::LineError;
pub use warning::Warning;

use crate::changes::Changes;
use counts::Counts;
use current::Current;
use rates::Buckets;
use snapshot::Snapshot;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use turns::{Inside, Turns};
use writer::{NEVER, Writer};

/// The ready-made policy, and the handle by which it is changed while it runs. Clones are the same rules.
///
/// ```
/// use libp2p_gater::{Cidr, Gate, Rule, RuleError, Rules};
/// use std::time::{Duration, SystemTime};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (mallory, alice) = (libp2p_identity::PeerId::random(), libp2p_identity::PeerId::random());
/// let rules = Rules::new();
/// let gate = Gate::new(rules.clone());
///
/// // All of it, or none of it, in one step.
/// rules.change(|change| {
///     change.block("192.0.2.0/24".parse::<Cidr>()?)?;
///     change.insert(Rule::block().peer(mallory).until(SystemTime::now() + Duration::from_secs(3600)).note("spam"))?;
///     change.insert(Rule::allow().peer(alice))?;
///     Ok(())
/// })?;
/// # let _ = gate; Ok(()) }
/// ```
///
/// # What decides, in this order
///
/// 0. An address that two transports would read as two ([`Parts::malformed`](crate::Parts::malformed)) is denied: rules would look at
///    the one, and somebody else be dialled.
/// 1. **Required knock** ([`Change::require_knock`], [`Change::require_knock_of_everybody`]): what has to knock and does not
///    is denied. Nothing outranks this.
/// 2. **Allow list**: a [`Rule::allow`] that holds, a set or a list of [`Standing::Allowed`], answers [`Verdict::Allow`]; whatever is below
///    is not looked at. It counts towards the caps. An allow of which something cannot be known yet (the peer, when a
///    connection is accepted) outranks 3, 4 and 6 until it can be, but not rates, nor the caps of pending attempts.
/// 3. **Block list**: a [`Rule::block`] that holds, a set or a list of [`Standing::Blocked`]. How narrow a range is does not matter.
/// 4. **Names and membership**: [`Change::refuse_names`], [`Change::admit`].
/// 5. **Rates**: [`Change::rates`]. What is denied above takes no token.
/// 6. **Caps**: [`Change::caps`].
/// 7. [`Verdict::Pass`]: a policy behind this one may have an opinion.
///
/// All of it is asked again at each stage, with what is known by then: the address, the peer, both.
/// Rates are asked once, at accept and address dial. IPv4-mapped IPv6 is IPv4 everywhere. Blocks
/// look at the IPv4 addresses that other IPv6 addresses lead to as well, allows do not
/// ([`embedded_ipv4`](crate::embedded_ipv4)).
///
/// # Reasons
///
/// [`Reason::rule`] is one of `malformed_address`; `require_knock`; `block_peer`, `block_network`, `block_set`, `block_list`, `block`; `refuse_names`;
/// `admit_members`, `admit_known_addresses`; `rate`, with the time to wait; `cap_total`, `cap_inbound`, `cap_outbound`,
/// `cap_pending_inbound`, `cap_pending_outbound`, `cap_per_peer`, `cap_per_ip`, `cap_per_prefix`, `cap_transport`.
/// [`Reason::detail`] is, or ends with, the line of the rules' file, note included; of a list it names the network too.
///
/// [`Reason::rule`]: crate::Reason::rule
/// [`Reason::detail`]: crate::Reason::detail
///
/// # Cost
///
/// A decision takes no lock and copies nothing, unless there are rates or caps: then a mutex for as long as it takes to look
/// into a table. Each thread keeps the rules that it asked last until it asks again or ends, even those that nobody has any
/// more. A change copies what it changes, some hundred microseconds at the worst with a million entries, and the
/// page of ranges that begin with the same 8 bits (32 in IPv6). A million blocked peers and 100,000 blocked ranges take some
/// 70 MiB.
///
/// [`Verdict::Allow`]: crate::Verdict::Allow
/// [`Verdict::Pass`]: crate::Verdict::Pass
#[derive(Clone)]
pub struct Rules(Arc<Shared>);

struct Shared {
    current: Current,
    /// Whose turn it is to change the rules.
    turns: Turns<Writer>,
    /// The second in which an allow expires next, or [`NEVER`].
    next_allow: AtomicU64,
    counts: Mutex<Counts>,
    buckets: Mutex<Buckets>,
    changes: Changes,
    clock: Clock,
}

/// What time it is, for rates and for expiry.
struct Clock {
    steady: Box<dyn Fn() -> Duration + Send + Sync>,
    wall: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::new()
    }
}

impl Rules {
    /// None yet: everything passes that makes sense.
    pub fn new() -> Self {
        let start = web_time::Instant::now();
        Self::with_clock(move || start.elapsed(), wall)
    }

    /// The same on other clocks: `steady` is the time since some moment, for rates, and `wall` is
    /// compared with when rules expire. For tests and simulations. They run where rules are asked
    /// or changed: a clock that panics denies what a gate asks, and panics into a change, which is
    /// then not made.
    pub fn with_clock(
        steady: impl Fn() -> Duration + Send + Sync + 'static,
        wall: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            current: Current::default(),
            turns: Turns::default(),
            next_allow: AtomicU64::new(NEVER),
            counts: Mutex::default(),
            buckets: Mutex::new(Buckets::new()),
            changes: Changes::new(),
            clock: Clock {
                steady: Box::new(steady),
                wall: Box::new(wall),
            },
        }))
    }

    /// Changes the rules in one step: `change` is told what to do, and every decision sees either all of it or none of it.
    /// None of it if it returns an error, or panics.
    ///
    /// ```
    /// # use libp2p_gater::{Cidr, RuleError, Rules};
    /// # let rules = Rules::new();
    /// rules.change(|change| {
    ///     change.block("192.0.2.0/24".parse::<Cidr>()?)?;
    ///     change.refuse_names(true);
    ///     Ok(())
    /// })?;
    /// # Ok::<(), RuleError>(())
    /// ```
    ///
    /// One change is made at a time, and others wait for it; decisions do not. When something may
    /// be refused now that was not before, every gate that asks these rules judges its live
    /// connections and pending dials anew. What has expired is put aside; see [`Rule::until`].
    ///
    /// # Errors
    ///
    /// Those of `change`; [`RuleError::TooMany`] if there would be too many rules about one
    /// network; [`RuleError::InsideChange`] if `change`, on its own thread, changes, saves or
    /// reloads the same rules.
    ///
    /// # Panics
    ///
    /// If `change` does, or the clock of [`Self::with_clock`]. The rules are then as they were. It
    /// never returns where `change` waits for another thread that changes the same rules.
    pub fn change<T>(&self, change: impl FnOnce(&mut Change) -> Result<T, RuleError>) -> Result<T, RuleError> {
        self.try_change(change)
    }

    /// [`Self::change`] for a closure with an error of its own. Rust wants to be told which, as in
    /// `Ok::<_, MyError>(())`.
    ///
    /// # Errors
    ///
    /// As [`Self::change`].
    ///
    /// # Panics
    ///
    /// As [`Self::change`].
    pub fn try_change<T, E: From<RuleError>>(&self, change: impl FnOnce(&mut Change) -> Result<T, E>) -> Result<T, E> {
        self.change_and(self.0.seconds(), change, |_| Ok(()))
    }

    /// The same at the second `now`; `keep` has the last word, before any decision sees the change.
    fn change_and<T, E: From<RuleError>>(
        &self,
        now: u64,
        change: impl FnOnce(&mut Change) -> Result<T, E>,
        keep: impl FnOnce(Kept<'_>) -> Result<(), E>,
    ) -> Result<T, E> {
        let mut turn = self.0.turns.take().map_err(RuleError::from)?;
        let before = self.0.current.load();
        let mut next = Change::of(Snapshot::clone(&before), now);
        turn.expire(&mut next, now);
        next.revive();
        let value = change(&mut next)?;
        let done = next.finish()?;
        let kept = Kept {
            files: &mut turn.files,
            before: &before,
            next: &done.next,
        };
        keep(kept)?;
        drop(before);
        self.0.publish(turn, done, now);
        Ok(value)
    }

    /// All rules of both lists that have not expired, in no order. Copies them.
    pub fn list(&self) -> Vec<Rule> {
        let now = self.0.seconds();
        let mut all = self.0.current.load().rules();
        all.retain(|rule| rule.until.is_none_or(|until| until > now));
        all
    }

    /// The rules of both lists that have expired, in no order. They are out of force, and are kept
    /// in memory and in files, for the clock may be wrong: see [`Rule::until`].
    /// [`Change::forget_expired`] drops them.
    pub fn expired(&self) -> Vec<Rule> {
        let now = self.0.seconds();
        let current = self.0.current.load();
        let listed = current.with_conditions();
        let listed = listed.filter(|rule| rule.until.is_some_and(|until| until <= now));
        listed
            .chain(current.expired.iter())
            .map(|rule| Rule::clone(rule))
            .collect()
    }

    /// The names of the sets, with their standing and the number of their members.
    pub fn sets(&self) -> Vec<(String, Standing, usize)> {
        let now = self.0.current.load();
        let sets = now.sets.iter();
        sets.map(|(name, set)| (name.clone(), set.standing, set.peers.len()))
            .collect()
    }
}

impl Shared {
    fn now(&self) -> SystemTime {
        (self.clock.wall)()
    }

    /// Since 1970.
    fn seconds(&self) -> u64 {
        rule::seconds(self.now())
    }
}

/// What a change that is to be kept in a file has come to.
struct Kept<'c> {
    files: &'c mut file::Files,
    before: &'c Snapshot,
    next: &'c Snapshot,
}

impl From<Inside> for RuleError {
    fn from(_: Inside) -> Self {
        Self::InsideChange
    }
}

/// The wall clock; on the web it is another type than the standard library's.
fn wall() -> SystemTime {
    use web_time::{SystemTime as Time, UNIX_EPOCH};
    let since = Time::now().duration_since(UNIX_EPOCH);
    SystemTime::UNIX_EPOCH + since.unwrap_or_default()
}

/// Nothing is left half done where something may panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let now = self.0.current.load();
        f.debug_struct("Rules")
            .field("blocked_peers", &now.blocked.len())
            .field("networks", &now.networks.len())
            .field("sets", &now.sets.len())
            .finish_non_exhaustive()
    }
}
