//! What the interoperability tests have in common.
//!
//! Every peer in those tests is a process of its own: it reads commands from its standard input and answers with
//! events, one JSON object a line, on its standard output.

pub mod go;
pub mod peer;
pub mod process;
