//! Says what the running kernel makes of the datapath, one line for each question; fails if it refuses a program.

use anyhow::{Result, bail};
use svc_tests::kernel;

fn main() -> Result<()> {
    let (rows, refused) = kernel::rows()?;
    for (what, answer) in &rows {
        // The form that `cargo xtask vm --table` reads.
        println!("svc-testkernel: {what} = {answer}");
    }
    for (name, why) in &refused {
        eprintln!("{name}: {why}");
    }
    if !refused.is_empty() {
        bail!("the kernel refuses {} programs, see above", refused.len());
    }
    Ok(())
}
