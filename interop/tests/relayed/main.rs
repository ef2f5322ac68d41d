//! The knock over relay circuits, through a real relay.

#[cfg(test)]
mod announced;
#[cfg(test)]
mod circuits;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod suite;
