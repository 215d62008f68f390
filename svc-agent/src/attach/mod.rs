//! Programs, devices and pins: what is attached where, and how it outlives the agent.

pub mod classes;
pub mod maps;
pub mod pins;
