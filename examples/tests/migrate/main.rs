//! What MIGRATION.md says, shown: the programs of `examples/migrate` as processes that meet at every stage, and the
//! chapter's diffs against the real files.

#[cfg(test)]
mod chapter;
#[cfg(test)]
mod kv;
#[cfg(test)]
mod lazy;
#[cfg(test)]
mod process;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod stages;
