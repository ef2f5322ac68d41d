//! Memory that runs short makes the manager close connections, of a real Swarm.

#[cfg(test)]
mod trims;
