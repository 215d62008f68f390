//! The node agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    svc_agent::command::main(std::env::args_os())
}
