//! `svcctl version`.

use std::io::Write;

use super::CliError;
use super::human::harmless;
use crate::client::Client;
use crate::control::api::Status;

/// Prints the client's version, and the agent's if there is one.
pub async fn run(client: &Client, out: &mut dyn Write) -> Result<(), CliError> {
    let agent = match client.get::<Status>("/v1/status", &()).await {
        Ok(status) => status.version,
        Err(error) => format!("unknown: {error}"),
    };
    writeln!(out, "svcctl      {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "svc-agent   {}", harmless(&agent))?;
    Ok(())
}
