//! Wanted peers beside what others bring: a gate that says no, a DHT that knows the same addresses
//! or other ones.
#![cfg(test)]

mod addresses;
mod common;
mod denials;
