//! What the fuzz targets do. Each of `fuzz_targets` calls the `run` of the module of its name.

pub mod announcement;
pub mod frames;
