//! The harness of the integration tests.

pub mod bench;
pub mod oracle;
pub mod packet;
