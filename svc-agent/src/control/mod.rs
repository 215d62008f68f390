//! The control socket: what the agent tells about itself, over HTTP/1.1 with JSON on a Unix socket.
//!
//! [`api`] has the documents, [`View`] is what the agent provides. Nothing here knows maps or programs.

pub mod api;
pub mod view;

pub use view::View;
