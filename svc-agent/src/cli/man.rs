//! `svcctl man`: manual pages, made of the help texts.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;

use super::CliError;
use super::args::Args;
use crate::command;

/// Writes `svcctl.1`, `svcctl-get.1` and so on, and those of svc-agent.
pub fn run(directory: &Path) -> Result<(), CliError> {
    let context = || format!("cannot write manual pages to `{}`", directory.display());
    fs::create_dir_all(directory).with_context(context)?;
    for program in [Args::command(), command::command()] {
        clap_mangen::generate_to(program, directory).with_context(context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page() {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let pages = dir.path().join("man1");
        run(&pages).unwrap();
        for (page, text) in
            [("svcctl.1", "svcctl\\-apply(1)"), ("svcctl-get.1", "no\\-headers"), ("svc-agent-run.1", "state\\-dir")]
        {
            let found = fs::read_to_string(pages.join(page)).unwrap();
            assert!(found.contains(text), "{page}: {found}");
        }
    }
}
