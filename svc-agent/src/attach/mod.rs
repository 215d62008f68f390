//! Programs, devices and pins: what is attached where, and how it outlives the agent.

mod bpffs;
mod cgroup;
pub mod classes;
pub mod cleanup;
mod clsact;
pub mod debug_log;
pub mod devices;
pub mod guard;
pub mod links;
pub mod maps;
pub mod netlink;
pub mod pins;
pub mod programs;
pub mod sockets;
pub mod table;
pub mod trial;
mod verify;
pub mod xdp;
