//! One line for each step, for people or for programs.

use crate::term;
use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The whole demo takes a few seconds. Whatever takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(30);
/// One step alone may take this long, so that a step that hangs leaves time for the others.
const STEP: Duration = Duration::from_secs(10);
/// Where the details start.
const COLUMN: usize = 44;

/// What a step has to tell when it went well.
#[derive(Debug, Default)]
pub(crate) struct Detail {
    text: String,
    lines: Vec<String>,
    fields: Map<String, Value>,
}

impl Detail {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            text,
            ..Self::default()
        }
    }

    /// A line of its own below the step.
    pub(crate) fn line(mut self, text: impl Into<String>) -> Self {
        self.lines.push(text.into());
        self
    }

    /// A field of the JSON object.
    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    started: Instant,
    steps: usize,
    ok: usize,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            started: Instant::now(),
            steps: 0,
            ok: 0,
        }
    }

    /// A line for people only.
    pub(crate) fn say(&self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { term::line(text) }
    }

    /// Waits for `work` and says how it went. A step that fails or hangs does not end the demo.
    pub(crate) async fn step(&mut self, name: &str, work: impl Future<Output = Result<Detail>>) -> io::Result<()> {
        let begun = Instant::now();
        let left = DEADLINE.saturating_sub(self.started.elapsed());
        let result = match timeout(left.min(STEP), work).await {
            Ok(result) => result,
            Err(_) if left < STEP => Err(anyhow!(
                "not done when the {} s for the whole demo were over",
                DEADLINE.as_secs()
            )),
            Err(_) => Err(anyhow!("hung: nothing within {} s", STEP.as_secs())),
        };
        self.steps += 1;
        self.ok += usize::from(result.is_ok());
        if self.json {
            let mut object = json!({ "step": name, "ok": result.is_ok(), "ms": begun.elapsed().as_secs_f64() * 1e3 });
            match (result, &mut object) {
                (Ok(detail), Value::Object(object)) => object.extend(detail.fields),
                (Err(error), object) => object["error"] = format!("{error:#}").into(),
                (Ok(_), _) => {}
            }
            return term::line(&object.to_string());
        }
        match result {
            Ok(Detail { text, lines, .. }) => {
                term::line(format!("{}  {name:COLUMN$}{text}", marked("ok", 32)).trim_end())?;
                lines.iter().try_for_each(|line| term::line(&format!("      {line}")))
            }
            Err(error) => term::line(&format!("{}  {name}: {error:#}", marked("FAILED", 31))),
        }
    }

    /// The last line. Whether everything went well.
    pub(crate) fn finish(self) -> io::Result<bool> {
        let Self { ok, steps: of, .. } = self;
        if self.json {
            term::line(&json!({ "demo": { "ok": ok, "of": of } }).to_string())?;
        } else {
            term::line("")?;
            term::line(&format!("demo: {ok}/{of} ok"))?;
        }
        Ok(ok == of)
    }
}

fn marked(word: &str, colour: u8) -> String {
    if term::coloured(&io::stdout()) {
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word.to_owned()
    }
}
