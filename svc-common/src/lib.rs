//! What the kernel programs and the agent share: wire formats, map layouts and the packet pipeline.
//!
//! No allocation, no clock, no logging, no panic. The pipeline is generic over the packet, the environment and the
//! address family, so that one source runs in the kernel and on the host.
#![cfg_attr(not(any(test, feature = "host")), no_std)]

pub mod affinity;
pub mod attend;
pub mod crc;
pub mod csum;
pub mod decide;
pub mod env;
pub mod expire;
pub mod family;
pub mod flow;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod icmp;
pub mod known;
pub mod maps;
pub mod net;
pub mod outcome;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod reason;
pub mod replay;
pub mod rewrite;
pub mod snat;
pub mod socket;
pub mod stage;
pub mod tunnel;
pub mod wire;
