//! The knock over relay circuits, through a real relay.

#[cfg(test)]
mod circuits;
