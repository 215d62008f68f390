//! The harness of the integration tests.

pub mod oracle;
pub mod packet;
