//! An API server for tests: list and watch as the real one does them, with faults on demand.
//!
//! [`Store`] is what etcd would hold. [`Server`] answers requests from it, in memory or, by [`http`], over a socket. Several
//! servers may share a store.

pub mod faults;
pub mod http;
mod server;
mod store;

#[cfg(test)]
mod rights_tests;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod source_tests;

pub use server::{Received, Server};
pub use store::Store;
