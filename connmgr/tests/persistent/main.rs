//! Two real Swarms that want each other, over real transports.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod counted;
#[cfg(test)]
mod settling;
#[cfg(test)]
mod streams;
