//! Streams, last activity and the bounded close, counted on real connections over real transports.

#[cfg(test)]
mod streams;
