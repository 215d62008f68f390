//! The control socket: what the agent tells about itself, over HTTP/1.1 with JSON on a Unix socket.
//!
//! [`api`] has the documents, [`View`] is what the agent provides, [`Socket::bind`] and [`serve`] are the server.
//! What the agent knows becomes documents in `resolved` and `observed`; nothing here opens maps or programs.
//!
//! ```text
//! accept -> peer (who is it) -> access (what may it) -> routes (which document) -> View
//! ```

mod access;
pub mod api;
pub mod catalog;
mod lists;
mod lock;
mod made;
mod named;
mod objects;
#[cfg(test)]
mod objects_tests;
mod observed;
mod patient;
mod peer;
mod resolved;
mod routes;
mod server;
mod socket;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod view;
#[cfg(test)]
pub(crate) mod workshop;

pub use catalog::{Catalog, Changer};
pub use routes::MAX_BODY_BYTES;
pub use server::serve;
pub use socket::Socket;
pub use view::View;

/// Where the socket is unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/svc-agent/control.sock";
