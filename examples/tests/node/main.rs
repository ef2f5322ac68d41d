//! The program `node` from outside: what it prints, what it leaves on disk, and how it exits.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod process;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod screen;
#[cfg(all(test, unix))]
mod shell;
