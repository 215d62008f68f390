//! Says what the running kernel makes of the datapath, one line for each question; fails if it refuses a program.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use svc_tests::kernel;

/// Says what the running kernel makes of the datapath.
#[derive(Parser)]
struct Args {
    /// Instead: how many instructions of each program the verifier looked at
    #[arg(long)]
    verified: bool,
    /// Of this object's programs, not of those that the agent would load here
    #[arg(long, requires = "verified")]
    object: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let refused = if args.verified {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
        let object = args.object.as_ref().map(read).transpose()?;
        let (verified, refused) = kernel::verified(object.as_deref())?;
        for (name, instructions) in &verified {
            println!("{instructions:>8} {name}");
        }
        refused
    } else {
        let (rows, refused) = kernel::rows()?;
        for (what, answer) in &rows {
            // The form that `cargo xtask vm --table` reads.
            println!("svc-testkernel: {what} = {answer}");
        }
        refused
    };
    for (name, why) in &refused {
        eprintln!("{name}: {why}");
    }
    if !refused.is_empty() {
        bail!("the kernel refuses {} programs, see above", refused.len());
    }
    Ok(())
}
