//! `cargo xtask demo`: see [`svc_tests::demo`].

use std::process::ExitCode;

use clap::Parser;
use svc_tests::demo::{self, Args};

fn main() -> ExitCode {
    match demo::run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
