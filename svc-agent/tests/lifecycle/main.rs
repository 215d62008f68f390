//! The agent as a process: what outlives it, what it adopts, what it refuses, what it leaves behind.
//!
//! Needs root, a BPF file system and the kernel programs (`cargo xtask test` has them); skips loudly otherwise.

#[cfg(test)]
mod devices;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod pins;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod world;
