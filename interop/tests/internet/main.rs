//! What needs routers and a public host between the peers: network namespaces and the kernel's own NAT.
#![cfg(all(test, target_os = "linux"))]

mod hole_punch;
mod netns;
mod partition;
