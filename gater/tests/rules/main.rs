//! The ready-made policy, asked as a gate would ask it.

mod asking;
mod caps;
mod damaged;
mod embedded;
mod file;
mod killed;
mod knocking;
mod lists;
mod membership;
mod precedence;
mod swaps;
