//! Notices that memory runs short, so that connections go before the system kills the process. Off by default.
//!
//! A [`Watcher`] reads once a second how much of the memory is in use, and raises an [`Alarm`] after
//! [`Config::with_confirmations`] readings in a row above the upper mark. It is silent then until a reading falls below the
//! lower mark, or, while none does, for [`Config::with_repeat`]. A single spike is no alarm, and one that lasts is one alarm,
//! not one a second.
//!
//! [`SystemMemory`] reads what limits this process: every control group that it is in (version 2 or 1), up to the root,
//! and the machine's memory; the fullest of them counts. Page cache that the kernel can drop is not counted as in use.
//! That is Linux; elsewhere [`SystemMemory::new`] fails with [`Unsupported`], and a [`Source`] of your own has to do.

mod gauge;
mod parse;
#[cfg(target_os = "linux")]
mod reader;
mod watcher;

pub use gauge::{Alarm, Config, Usage};
pub use watcher::{Source, SystemMemory, Unsupported, Watcher};
