//! The ready-made policy, asked as a gate would ask it.

mod asking;
mod caps;
mod damaged;
mod file;
mod killed;
mod lists;
mod membership;
mod precedence;
mod swaps;
