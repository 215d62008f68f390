//! The harness of the integration tests: worlds of network namespaces, servers and clients in them, agents, packets.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use svc_tests::{agent::Agent, client, manifest::Service, topology::{Shape, World}};
//!
//! let world = World::build(Shape::default())?;
//! let _servers = world.start_servers()?;
//! let agent = Agent::start(world.node(0)?)?;
//! let web = Service::new("web", 1).http().endpoints(&world.pods);
//! agent.apply(&[&web])?;
//! let answer = client::http(&world.pods[0].host.ns, web.cluster(80)[0])?;
//! assert!(answer.pod.starts_with("pod-"));
//! # Ok(())
//! # }
//! ```

pub mod agent;
pub mod answer;
pub mod apiserver;
pub mod bench;
pub mod binaries;
pub mod cgroup;
pub mod client;
pub mod demo;
pub mod dns;
pub mod kernel;
pub mod kube;
pub mod load;
pub mod manifest;
pub mod message;
pub mod need;
pub mod netns;
pub mod oracle;
pub mod packet;
pub mod pieces;
pub mod scratch;
pub mod server;
pub mod statistics;
pub mod topology;
pub mod wire;

#[cfg(test)]
mod deploy;
#[cfg(test)]
mod docs;
