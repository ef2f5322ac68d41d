//! The gate in real swarms. Which check of go-libp2p each test ports stands in `tests/README.md`.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod alone;
#[cfg(test)]
mod cells;
#[cfg(test)]
mod common;
#[cfg(test)]
mod counting;
#[cfg(test)]
mod expiry;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod gating;
#[cfg(test)]
mod goodbyes;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod names;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod order;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod side_by_side;
#[cfg(test)]
mod sweeps;
#[cfg(test)]
mod tightening;
#[cfg(test)]
mod user_code;
#[cfg(test)]
mod wire;
