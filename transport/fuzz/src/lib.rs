//! What the fuzz targets do. Each of `fuzz_targets` calls the `run` of the module of its name.

pub mod certificate;
pub mod client_hello;
pub mod knock_bytes;
pub mod pre_auth;
pub mod records;
pub mod yamux;
