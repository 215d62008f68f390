//! Bytes of no meaning through the pipeline: the host compilation, and with `--kernel` the loaded programs beside it.
//!
//! Inputs are files that are given, or are made until the time is over: random ones, and former ones with a change. What breaks
//! a rule is kept as a file that breaks it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use svc_tests::oracle::random::{dice::Dice, fuzz};
use svc_tests::oracle::{Oracle, in_namespace};

/// Former inputs that are changed.
const KEPT: usize = 256;

#[derive(Clone, Parser)]
struct Args {
    /// Run these inputs once instead of making new ones
    files: Vec<PathBuf>,
    /// How long to make new ones, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where choices begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compare with the loaded programs (needs root)
    #[arg(long)]
    kernel: bool,
    /// Where inputs that break a rule are kept
    #[arg(long, default_value = ".")]
    finds: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.kernel {
        in_namespace(|oracle| run(&args, oracle)).unwrap_or_else(|| bail!("needs root and the kernel programs"))
    } else {
        run(&args, &mut Oracle::host_only())
    };
    match result {
        Ok(inputs) => {
            println!("{inputs} inputs, no rule broken");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("svc-fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, oracle: &mut Oracle) -> Result<u64> {
    for file in &args.files {
        let input = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        check(oracle, &input).with_context(|| format!("`{}`", file.display()))?;
    }
    if !args.files.is_empty() {
        return Ok(args.files.len() as u64);
    }
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let mut dice = Dice::Seed(args.seed);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut inputs = 0;
    while Instant::now() < deadline {
        let input = next(&mut dice, &kept);
        inputs += 1;
        if let Err(error) = check(oracle, &input) {
            let file = args.finds.join(format!("svc-fuzz-{}-{inputs}.bin", args.seed));
            std::fs::write(&file, &input).with_context(|| format!("cannot write `{}`", file.display()))?;
            return Err(error.context(format!("`{}` breaks it again", file.display())));
        }
        if kept.len() < KEPT {
            kept.push(input);
        } else {
            let at = dice.below(KEPT);
            kept[at] = input;
        }
    }
    Ok(inputs)
}

/// A random input, or a former one with a few bytes changed, taken out or put in.
fn next(dice: &mut Dice<'_>, kept: &[Vec<u8>]) -> Vec<u8> {
    if kept.is_empty() || dice.one_in(4) {
        let len = dice.below(600);
        return dice.bytes(len);
    }
    let mut input = kept[dice.below(kept.len())].clone();
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(input.len() + 1);
        match dice.below(3) {
            0 if at < input.len() => input[at] = dice.byte(),
            1 if at < input.len() => drop(input.remove(at)),
            _ => input.insert(at, dice.byte()),
        }
    }
    input
}

fn check(oracle: &mut Oracle, input: &[u8]) -> Result<()> {
    match catch_unwind(AssertUnwindSafe(|| fuzz::input(oracle, input))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => bail!("{fault}"),
        Err(_) => bail!("the pipeline panicked, see above"),
    }
}
