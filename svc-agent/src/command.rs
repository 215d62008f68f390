//! The command line of `svc-agent`.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, keys};
use crate::model::Rules;
use crate::{agent, attach, check, config, datapath};

/// The commands, for help, completions and manual pages.
pub fn command() -> Command {
    Command::new("svc-agent")
        .about("Makes Kubernetes Services work on this node, by eBPF")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("run")
                .about("Runs the node agent; needs root")
                // So that a wrapper's options can be overruled.
                .args_override_self(true)
                .after_help(
                    "Every option is also an environment variable (--pin-dir is SVC_AGENT_PIN_DIR) and a key of the TOML \
                     file (pin-dir). Options win over variables, variables over the file.",
                )
                .args(keys::arguments(&[keys::CONFIG]))
                .args(keys::arguments(keys::ALL)),
        )
        .subcommand(
            Command::new("check")
                .about("Validates manifests; needs no privileges. Exit status 0 if there is no error, 1 otherwise")
                .arg(
                    Arg::new("file")
                        .short('f')
                        .long("file")
                        .value_name("DIR|FILE|-")
                        .required(true)
                        .action(ArgAction::Append)
                        .value_parser(clap::value_parser!(PathBuf))
                        .help("Manifests, as `run --manifests` reads them, or - for standard input; may be repeated"),
                ),
        )
        .subcommand(
            Command::new("cleanup")
                .about("Removes links, maps and the pin directory, which ends the datapath; needs root")
                .args(keys::arguments(&[keys::CONFIG]))
                .args(keys::arguments(&[keys::PIN_DIR])),
        )
        .subcommand(Command::new("version").about("Prints the version, and whether the kernel programs are built in"))
}

/// Runs the command that `args` ask for.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            let _unwritable = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(&matches) {
        Ok(code) => code,
        Err(error) => {
            let _unwritable = writeln!(io::stderr(), "svc-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("run", matches)) => {
            let config = Config::from_matches(matches)?;
            log_to_stderr(&config.log)?;
            runtime()?.block_on(agent::run(config)).map(|()| ExitCode::SUCCESS)
        }
        Some(("check", matches)) => {
            let paths: Vec<PathBuf> = matches.get_many("file").into_iter().flatten().cloned().collect();
            Ok(check::run(&paths, &Rules::default(), &mut io::stdin().lock(), &mut io::stdout().lock())?)
        }
        Some(("cleanup", matches)) => cleanup(matches),
        _ => version(),
    }
}

fn cleanup(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let pin_dir = config::pin_dir_from_matches(matches)?;
    let removed = runtime()?.block_on(attach::cleanup::cleanup(&pin_dir))?;
    let mut out = io::stdout().lock();
    for line in &removed {
        writeln!(out, "removed {line}")?;
    }
    if removed.is_empty() {
        writeln!(out, "nothing to remove: no pins in {}", pin_dir.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn version() -> anyhow::Result<ExitCode> {
    let programs = if datapath::embedded() { "with" } else { "without" };
    writeln!(io::stdout(), "svc-agent {} ({programs} kernel programs)", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log: found `{filter}`, expected a level such as info, or a filter"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // Otherwise a log that nobody reads any more ends the agent.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_key_is_an_option_of_run() {
        let command = command();
        let run = command.find_subcommand("run").unwrap();
        for key in keys::ALL {
            assert!(run.get_arguments().any(|arg| arg.get_long() == Some(key.name)), "--{}", key.name);
        }
    }
}
