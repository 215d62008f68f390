//! The name server.

use std::process::ExitCode;

fn main() -> ExitCode {
    svc_dns::command::main(std::env::args_os())
}
