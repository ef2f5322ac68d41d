//! The program that has all plugins, the page that shows it, and what it takes to make it of a stock program.

#[cfg(test)]
mod page;
#[cfg(test)]
#[cfg(unix)]
mod process;
#[cfg(test)]
#[cfg(unix)]
mod together;
