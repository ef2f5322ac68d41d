//! What is logged on this thread while something is done.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::OnceLock;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// One for the process: with one for each thread, what another thread logs first may be switched
/// off for all.
struct Logs;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("libp2p_gater")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let line = (*event.metadata().level(), line.0);
        let _ = LINES.try_with(|lines| lines.borrow_mut().push(line));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The lines of that level, or of a more serious one.
pub(crate) fn logged(level: Level, work: impl FnOnce()) -> Vec<String> {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| tracing::subscriber::set_global_default(Logs).expect("no other"));
    LINES.take();
    work();
    let lines = LINES.take().into_iter();
    lines.filter(|(of, _)| *of <= level).map(|(_, line)| line).collect()
}
