//! The ready-made policy, asked as a gate would ask it.

mod asking;
mod caps;
mod clocks;
mod closures;
mod damaged;
mod edited;
mod embedded;
mod file;
mod killed;
mod knocking;
mod lists;
#[path = "../it/logs.rs"]
mod logs;
mod membership;
mod precedence;
mod swaps;
mod warnings;
