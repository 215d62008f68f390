//! `svcctl`: arguments, requests to the control socket, output. It knows no maps.

mod age;
mod args;
mod backends;
mod change;
mod counters;
mod describe;
mod devices;
mod endpoints;
mod env;
mod events;
mod expose;
mod flows;
mod get;
mod human;
mod man;
mod objects;
mod printer;
mod services;
mod simulate;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod trace;
mod version;

use std::ffi::OsString;
use std::io::{self, Write};

use args::Command;
use clap::{CommandFactory, Parser};

use crate::client::{Client, ClientError};

pub use args::Args;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The arguments make no sense; help and version come this way too.
    #[error("{0}")]
    Usage(#[from] clap::Error),
    /// The agent has not answered.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing has the name that was given.
    #[error("{0}")]
    NotFound(String),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A command that needs no agent failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// A document cannot be written as YAML.
    #[error("cannot write YAML: {0}")]
    Yaml(String),
}

/// Runs `svcctl` with its arguments, the program's name first. Returns the exit code: 0, 1 for failures, 2 for wrong
/// arguments. A reader that goes away is no failure.
pub fn run(args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let result = Args::try_parse_from(args).map_err(CliError::from).and_then(|args| execute(args, out, err));
    let result = result.and_then(|()| Ok(out.flush()?));
    match &result {
        Ok(()) => 0,
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(CliError::Usage(error)) if !error.use_stderr() => {
            let written = write!(out, "{error}").and_then(|()| out.flush());
            u8::from(written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe))
        }
        Err(error @ CliError::Usage(_)) => {
            // What cannot be told cannot be told.
            drop(write!(err, "{error}"));
            2
        }
        Err(error) => {
            // What was printed before the failure comes first.
            drop(out.flush());
            drop(writeln!(err, "error: {error}"));
            1
        }
    }
}

fn execute(args: Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let format = match &args.command {
        Command::Status(output) => Some(output.output),
        Command::Events(events) => Some(events.output.output),
        Command::Trace(trace) => Some(trace.output),
        _ => None,
    };
    if format == Some(args::Format::Name) {
        return Err(change::usage("-o name is for `svcctl get` of objects only"));
    }
    let client = Client::new(args.socket);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.command {
        Command::Status(output) => runtime.block_on(status::run(&client, output, out)),
        Command::Get(get) => runtime.block_on(get::run(&client, &get, out, err)),
        Command::Apply(apply) => runtime.block_on(change::apply(&client, &apply, out, err)),
        Command::Delete(delete) => runtime.block_on(change::delete(&client, &delete, out, err)),
        Command::Expose(expose) => runtime.block_on(expose::run(&client, &expose, out, err)),
        Command::Describe(describe) => runtime.block_on(describe::run(&client, &describe, out)),
        Command::Env(env) => runtime.block_on(env::run(&client, &env, out)),
        Command::Simulate(simulate) => simulate::run(&simulate, out, err),
        Command::Events(events) => runtime.block_on(events::run(&client, &events, out)),
        Command::Trace(trace) => runtime.block_on(trace::run(&client, &trace, out)),
        Command::Version => runtime.block_on(version::run(&client, out)),
        Command::Man { directory } => man::run(&directory),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "svcctl", &mut script);
            Ok(out.write_all(&script)?)
        }
    }
}
