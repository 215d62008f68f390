//! What the kernel programs and the agent share: wire formats, map layouts and the packet pipeline.
//!
//! No allocation, no clock, no logging, no panic. The pipeline is generic over the packet, the environment and the
//! address family, so that one source runs in the kernel and on the host.
#![cfg_attr(not(any(test, feature = "host")), no_std)]

pub mod maps;
pub mod net;
pub mod reason;
