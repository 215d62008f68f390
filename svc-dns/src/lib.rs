//! Answers for the names of Services, and forwards the rest.
//!
//! ```text
//! control socket -> source -> zone -\
//! UDP, TCP -> server -> message -> answer -> message -> UDP, TCP
//!                          \-> forward (cache, upstreams) -/
//! ```
//!
//! This process needs no privileges and knows nothing of maps, packets or policy: what strangers send is parsed here, so
//! that the agent need not.

pub mod answer;
#[cfg(test)]
mod answer_tests;
pub mod command;
pub mod config;
#[cfg(test)]
mod fixtures;
pub mod forward;
pub mod health;
pub mod message;
#[cfg(test)]
mod message_tests;
pub mod server;
pub mod source;
pub mod zone;
