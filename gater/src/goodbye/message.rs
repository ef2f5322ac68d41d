//! The message as bytes.

use crate::shown::is_obeyed;
use crate::verdict::Reason;
use std::fmt;
use std::time::Duration;

/// Code, seconds, length.
pub(super) const HEAD: usize = 7;
/// The longest text, in bytes.
const LONGEST_TEXT: usize = 255;

/// Why a connection is closed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// 0: it does not say.
    Unspecified,
    /// 1: there were more connections than wanted, and this one was worth least.
    Trimmed,
    /// 2: a rule does not allow it any more.
    NotAllowed,
    /// 3: there are more connections than may be.
    TooMany,
    /// 4: the node stops.
    ShuttingDown,
    /// Any other, of a later version.
    Other(u16),
}

impl From<u16> for Code {
    fn from(code: u16) -> Self {
        match code {
            0 => Self::Unspecified,
            1 => Self::Trimmed,
            2 => Self::NotAllowed,
            3 => Self::TooMany,
            4 => Self::ShuttingDown,
            other => Self::Other(other),
        }
    }
}

impl From<Code> for u16 {
    fn from(code: Code) -> Self {
        match code {
            Code::Unspecified => 0,
            Code::Trimmed => 1,
            Code::NotAllowed => 2,
            Code::TooMany => 3,
            Code::ShuttingDown => 4,
            Code::Other(other) => other,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unspecified => f.write_str("unspecified"),
            Self::Trimmed => f.write_str("trimmed"),
            Self::NotAllowed => f.write_str("not allowed"),
            Self::TooMany => f.write_str("too many connections"),
            Self::ShuttingDown => f.write_str("shutting down"),
            Self::Other(code) => write!(f, "code {code}"),
        }
    }
}

/// What is said before a connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    code: Code,
    retry_after: u32,
    text: String,
}

impl Goodbye {
    /// One that says `code` and nothing else.
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            retry_after: 0,
            text: String::new(),
        }
    }

    /// With a text for people. What is beyond 255 bytes is cut off, between characters. Control
    /// characters, and what sets the direction of a text, become replacement characters, here and
    /// where it is received, for it ends up in logs.
    pub fn with_text(mut self, text: impl AsRef<str>) -> Self {
        self.text = text.as_ref().replace(is_obeyed, "\u{fffd}");
        let mut end = self.text.len().min(LONGEST_TEXT);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        self.text.truncate(end);
        self
    }

    /// With how long it is no use to dial again: whole seconds, rounded up, at most 136 years. Zero says nothing.
    pub fn with_retry_after(mut self, time: Duration) -> Self {
        let up = u64::from(time.subsec_nanos() > 0);
        self.retry_after = u32::try_from(time.as_secs().saturating_add(up)).unwrap_or(u32::MAX);
        self
    }

    /// Why, for programs.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Why, for people. Never has control characters. The other side can write what it likes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// For how long it is no use to dial again, if that was said.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.retry_after > 0).then(|| Duration::from_secs(self.retry_after.into()))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.text.len());
        bytes.extend(u16::from(self.code).to_be_bytes());
        bytes.extend(self.retry_after.to_be_bytes());
        bytes.push(u8::try_from(self.text.len()).expect("cut to 255 bytes"));
        bytes.extend(self.text.as_bytes());
        bytes
    }

    /// How many bytes of text come behind `head`.
    pub(super) fn text_length(head: &[u8; HEAD]) -> usize {
        head[6].into()
    }

    /// From both parts. Text that is no UTF-8 is made so: it is for people, and a goodbye with a bad accent is still one.
    pub(super) fn from_parts(head: &[u8; HEAD], text: &[u8]) -> Self {
        let [a, b, c, d, e, f, _] = *head;
        Self {
            code: u16::from_be_bytes([a, b]).into(),
            retry_after: u32::from_be_bytes([c, d, e, f]),
            text: String::new(),
        }
        .with_text(String::from_utf8_lossy(text))
    }
}

/// Not allowed, by the name of the rule: which entry it was is not the other side's to know.
impl From<&Reason> for Goodbye {
    fn from(reason: &Reason) -> Self {
        let this = Self::new(Code::NotAllowed).with_text(reason.rule());
        match reason.retry_after() {
            Some(time) => this.with_retry_after(time),
            None => this,
        }
    }
}

impl fmt::Display for Goodbye {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        match self.retry_after() {
            Some(time) => write!(f, " (not again for {} s)", time.as_secs()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8]) -> Goodbye {
        let (head, text) = bytes.split_first_chunk().expect("a head");
        assert_eq!(Goodbye::text_length(head), text.len());
        Goodbye::from_parts(head, text)
    }

    #[test]
    fn a_text_has_nothing_that_a_terminal_obeys() {
        for c in ['\u{1b}', '\n', '\u{9b}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2066}'] {
            let text = format!("a{c}b");
            assert_eq!(Goodbye::new(Code::NotAllowed).with_text(&text).text(), "a\u{fffd}b");
            let received = Goodbye::from_parts(&[0; HEAD], text.as_bytes());
            assert_eq!(received.text(), "a\u{fffd}b");
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_documentation() {
        let goodbye = Goodbye::new(Code::Trimmed)
            .with_text("no room")
            .with_retry_after(Duration::from_millis(60_001));
        assert_eq!(goodbye.to_bytes(), b"\x00\x01\x00\x00\x00\x3d\x07no room");
        assert_eq!(goodbye.to_string(), "trimmed: no room (not again for 61 s)");
    }

    #[test]
    fn a_text_is_cut_between_characters_and_has_no_line_breaks() {
        let long = Goodbye::new(Code::Unspecified).with_text("ü".repeat(200));
        assert_eq!(long.text(), "ü".repeat(127));
        let lines = Goodbye::new(Code::Unspecified).with_text("a\nb\u{1b}[31m");
        assert_eq!(lines.text(), "a\u{fffd}b\u{fffd}[31m");
        let forever = Goodbye::new(Code::Unspecified).with_retry_after(Duration::MAX);
        assert_eq!(forever.retry_after(), Some(Duration::from_secs(u32::MAX.into())));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_received(code: u16, seconds: u32, text: String) {
            let goodbye =
                Goodbye::new(code.into()).with_text(text).with_retry_after(Duration::from_secs(seconds.into()));
            prop_assert_eq!(u16::from(goodbye.code()), code);
            prop_assert_eq!(decoded(&goodbye.to_bytes()), goodbye);
        }

        #[test]
        fn any_bytes_are_a_goodbye_that_can_be_logged(head: [u8; HEAD], text in prop::collection::vec(any::<u8>(), 0..256)) {
            let goodbye = Goodbye::from_parts(&head, &text);
            prop_assert!(goodbye.text().len() <= LONGEST_TEXT);
            prop_assert!(!goodbye.text().contains(is_obeyed));
        }
    }
}
