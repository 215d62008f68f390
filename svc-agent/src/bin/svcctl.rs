//! Shows what the node agent does, through its control socket.

use std::io::{BufWriter, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    svc_agent::cli::run(std::env::args_os(), &mut BufWriter::new(stdout()), &mut stderr()).into()
}
