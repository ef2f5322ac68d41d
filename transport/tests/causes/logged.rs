//! What this process logs, kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, Once, PoisonError};
use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) level: Level,
    fields: BTreeMap<&'static str, String>,
}

impl Line {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub(crate) fn message(&self) -> &str {
        self.field("message").unwrap_or_default()
    }

    pub(crate) fn says(&self, text: &str) -> bool {
        self.message().contains(text)
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.fields.insert(field.name(), value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

struct Keeping;

impl<S: tracing::Subscriber> Layer<S> for Keeping {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = Line {
            level: *event.metadata().level(),
            fields: BTreeMap::new(),
        };
        event.record(&mut line);
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// The filter that the README names.
fn filter() -> EnvFilter {
    let readme = include_str!("../../README.md");
    let mut named = readme.lines().filter_map(|line| line.strip_prefix("RUST_LOG="));
    let filter = named.next().and_then(|named| named.split(' ').next()).unwrap();
    assert_eq!(named.next(), None, "one line");
    EnvFilter::try_new(filter).unwrap()
}

/// A place in the log. While it is there, no other test writes to the log.
pub(crate) struct Mark {
    at: usize,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

/// The end of the log as it is now. From the first call on what passes the README's filter is kept.
pub(crate) async fn mark() -> Mark {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    static KEPT: Once = Once::new();
    let alone = ALONE.lock().await;
    KEPT.call_once(|| {
        let kept = tracing_subscriber::registry().with(Keeping.with_filter(filter()));
        tracing::subscriber::set_global_default(kept).unwrap();
    });
    Mark {
        at: LINES.lock().unwrap_or_else(PoisonError::into_inner).len(),
        _alone: alone,
    }
}

impl Mark {
    /// What was logged since.
    pub(crate) fn lines(&self) -> Vec<Line> {
        LINES.lock().unwrap_or_else(PoisonError::into_inner)[self.at..].to_vec()
    }
}
