//! The ready-made policy, asked as a gate would ask it.

mod asking;
mod caps;
mod clocks;
mod closures;
mod damaged;
mod edited;
mod embedded;
mod file;
mod grammar;
mod imports;
mod killed;
mod knocking;
mod lists;
#[path = "../it/logs.rs"]
mod logs;
#[cfg(unix)]
mod meanwhile;
mod membership;
mod precedence;
mod published;
mod reasons;
mod shown;
mod swaps;
mod warnings;
