//! `cargo xtask`: everything that is done with this repository, each task one word.

mod apt;
mod bench;
mod build;
mod demo;
mod fuzz;
mod linker;
mod lint;
mod packages;
mod pins;
mod run;
mod rust_src;
mod setup;
mod source;
mod summary;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, build, demo, tests and benchmarks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Bring this machine to where everything builds and runs; does nothing that is done already
    Setup,
    /// Build the kernel programs, then the agent that embeds them and svcctl
    Build(build::Args),
    /// Check format, lints and documentation
    Lint,
    /// Show the load balancer at work in network namespaces of this machine (needs root)
    Demo(demo::Args),
    /// Run every test that this user may run; the last line is the sum
    Test(test::Args),
    /// Measure the datapath (needs root)
    Bench(bench::Args),
    /// Look for inputs that break a rule of the pipeline
    Fuzz(fuzz::Args),
    /// Run tests, or a command, in a virtual machine with another kernel
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Setup => setup::run(),
        Task::Build(args) => build::run(&args),
        Task::Lint => lint::run(),
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Vm(args) => vm::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
