//! Every program of the object, loaded over maps of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::{Ebpf, EbpfLoader, programs::Program};
use svc_agent::datapath::program;
use svc_common::maps::spec;

/// The programs, and why some were refused.
pub struct Programs {
    /// All of them.
    pub ebpf: Ebpf,
    /// The kernel's reasons by name: the last lines of what the verifier says.
    pub refused: BTreeMap<String, String>,
    count: usize,
    /// How many instructions the verifier looked at, by name; nothing if the kernel does not tell.
    pub verified: BTreeMap<String, u32>,
}

impl Programs {
    /// Loads all programs of an object; a refused one is no error.
    ///
    /// # Errors
    /// If it is none, or the maps cannot be made.
    pub fn load(object: &[u8]) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        let jiffy_mult = (1_u64 << 32) / 250;
        loader.override_global(program::JIFFY_MULT, &jiffy_mult, true);
        for map in spec::ALL {
            loader.map_max_entries(map.name, map.capacity.min(4_096));
        }
        let mut ebpf = loader.load(object).context("the maps")?;
        let (mut refused, mut count, mut verified) = (BTreeMap::new(), 0, BTreeMap::new());
        for (name, program) in ebpf.programs_mut() {
            count += 1;
            match load(program) {
                Ok(()) => {
                    let told = program.info().ok().and_then(|info| info.verified_instruction_count());
                    verified.extend(told.map(|instructions| (name.to_owned(), instructions)));
                }
                Err(error) => drop(refused.insert(name.to_owned(), last_lines(&format!("{error:#}")))),
            }
        }
        Ok(Self { ebpf, refused, count, verified })
    }

    pub(super) fn loaded(&self) -> String {
        format!("{} of {}", self.count - self.refused.len(), self.count)
    }

    pub(super) fn largest(&self) -> String {
        match self.verified.iter().max_by_key(|(_, verified)| **verified) {
            Some((name, verified)) => format!("{verified} (`{name}`)"),
            None => "not told".into(),
        }
    }
}

fn load(program: &mut Program) -> Result<()> {
    match program {
        Program::Xdp(program) => program.load()?,
        Program::SchedClassifier(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        Program::CgroupSock(program) => program.load()?,
        _ => anyhow::bail!("of another kind"),
    }
    Ok(())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(6)).copied().collect::<Vec<_>>().join(" | ")
}
