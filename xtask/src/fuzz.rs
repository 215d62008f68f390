//! `cargo xtask fuzz`: libFuzzer on the host compilation of the pipeline, then, as root, with the loaded programs beside it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::toolchain::Toolchain;
use crate::{build, run, setup};

/// The inputs to begin with: one in a line, hexadecimal.
const CORPUS: &str = "fuzz/corpus.txt";
/// Longer inputs say nothing that shorter ones do not.
const MAX_LEN: usize = 1_024;
/// The corpus stays a file that people can live with: so many lines, none longer than this.
const MAX_LINES: usize = 150;
const MAX_LINE_BYTES: usize = 600;

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// How long; as root one half without and one half with the loaded programs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Leave the loaded programs out, also as root
    #[arg(long)]
    host: bool,
    /// Put the least set of inputs that reaches all that was reached into the corpus
    #[arg(long)]
    keep: bool,
    /// Run these inputs once instead
    files: Vec<PathBuf>,
}

/// Builds the fuzzer and runs it.
///
/// # Errors
/// If something does not build, or an input breaks a rule.
pub fn run(args: &Args) -> Result<()> {
    if run::which("c++").is_none() {
        bail!("there is no C++ compiler, which libFuzzer is built with; remedy: as root, run apt-get install g++");
    }
    let worlds: &[World] = if run::is_root() && !args.host { &[World::Host, World::Both] } else { &[World::Host] };
    let fuzzer = built(worlds)?;
    let dir = build::target_dir().join("fuzz");
    let [inputs, finds, least] = ["inputs", "finds", "least"].map(|name| dir.join(name));
    for dir in [&inputs, &finds] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let mut sums = Vec::new();
    for world in worlds {
        let mut command = world.command(&fuzzer);
        command.arg(format!("-artifact_prefix={}/", finds.display()));
        if args.files.is_empty() {
            command.env("SVC_FUZZ_SEEDS", &inputs);
            let seconds = args.seconds.div_ceil(worlds.len() as u64);
            command.args([format!("-max_total_time={seconds}"), format!("-max_len={MAX_LEN}")]);
            command.args(["-print_final_stats=1", "-timeout=20"]).arg(&inputs);
        } else {
            command.args(&args.files);
        }
        let report = watched(&mut command)?;
        if let Some(failure) = report.failure {
            bail!("{}: an input breaks a rule ({failure}){}", world.name(), again(report.find.as_deref()));
        }
        sums.push(format!("{}: {} inputs", world.name(), report.inputs));
    }
    if args.keep {
        keep(&fuzzer, &inputs, &least)?;
    }
    if args.files.is_empty() {
        println!("fuzz: {}; no rule broken", sums.join(", "));
    } else {
        println!("fuzz: {} inputs, no rule broken", args.files.len());
    }
    Ok(())
}

/// What an input is run on.
#[derive(Clone, Copy)]
enum World {
    Host,
    Both,
}

impl World {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "host compilation",
            Self::Both => "host compilation and loaded programs",
        }
    }

    fn command(self, fuzzer: &Path) -> Command {
        let mut command = Command::new(fuzzer);
        command.current_dir(run::workspace());
        if let Self::Both = self {
            command.env("SVC_FUZZ_KERNEL", "1");
        }
        command
    }
}

fn built(worlds: &[World]) -> Result<PathBuf> {
    let toolchain = setup::for_build()?;
    let mut cargo = toolchain.cargo("build");
    cargo.args(["--quiet", "--package", "svc-fuzz", "--features", "libfuzzer"]);
    // The rest is as in every other build, and shared with it.
    for package in ["svc-common", "svc-tests"] {
        cargo.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=3"));
    }
    cargo.env("RUSTC_WORKSPACE_WRAPPER", run::workspace().join("fuzz/rustc.sh"));
    if worlds.len() > 1 {
        cargo.env("SVC_EBPF_OBJECT", object(&toolchain)?);
    }
    run::loud(&mut cargo).context("the fuzzer does not build")?;
    Ok(build::target_dir().join("debug/svc-fuzz"))
}

fn object(toolchain: &Toolchain) -> Result<PathBuf> {
    build::kernel_programs(toolchain)
}

/// What libFuzzer told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// Inputs that were run.
    inputs: u64,
    /// The file with the input that broke a rule.
    find: Option<PathBuf>,
    /// How the program ended, if not well.
    failure: Option<String>,
}

impl Report {
    fn read(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.inputs = count.trim().parse().unwrap_or(0);
        }
        if let Some((_, file)) = line.split_once("Test unit written to ") {
            self.find = Some(PathBuf::from(file.trim()));
        }
    }
}

/// Runs libFuzzer and repeats what it prints.
fn watched(command: &mut Command) -> Result<Report> {
    let line = run::shown(command);
    let mut child = command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run `{line}`"))?;
    let mut report = Report::default();
    for line in BufReader::new(child.stderr.take().context("no pipe to the fuzzer")?).lines() {
        let line = line?;
        report.read(&line);
        // Its dictionary is for people who write one.
        if !line.starts_with('"') && !line.starts_with("##") {
            eprintln!("{line}");
        }
    }
    let status = child.wait()?;
    report.failure = (!status.success()).then(|| status.to_string());
    Ok(report)
}

/// How an input is run again.
fn again(find: Option<&Path>) -> String {
    let Some(file) = find else { return String::new() };
    let digits = fs::read(file).map(|bytes| hex(&bytes)).unwrap_or_default();
    format!("\n  `cargo xtask fuzz {}` breaks it again; a line for {CORPUS}:\n{digits}", file.display())
}

/// Makes the corpus of the least set of inputs.
fn keep(fuzzer: &Path, inputs: &Path, least: &Path) -> Result<()> {
    let _absent = fs::remove_dir_all(least);
    fs::create_dir_all(least)?;
    let mut merge = World::Host.command(fuzzer);
    run::loud(merge.args(["-merge=1", &format!("-max_len={MAX_LINE_BYTES}")]).args([least, inputs]))?;
    let lines = pack(least)?;
    fs::write(run::workspace().join(CORPUS), lines).with_context(|| format!("cannot write {CORPUS}"))
}

/// The corpus of a folder's files, the shortest first; of too many, some of every length.
fn pack(from: &Path) -> Result<String> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(from)? {
        inputs.push(fs::read(entry?.path())?);
    }
    inputs.retain(|input| (1..=MAX_LINE_BYTES).contains(&input.len()));
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut text = "# Inputs of the fuzzer, by `cargo xtask fuzz --keep`; every test run runs them.\n".to_owned();
    for input in inputs.iter().step_by(inputs.len().div_ceil(MAX_LINES).max(1)) {
        writeln!(text, "{}", hex(input))?;
    }
    Ok(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_has_a_line_for_each_input() {
        let dir = std::env::temp_dir().join(format!("svct-corpus-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in [("a", &[0, 0xff, 0x10][..]), ("b", &[7]), ("c", &[1; MAX_LINE_BYTES + 1]), ("d", &[])] {
            fs::write(dir.join(name), bytes).unwrap();
        }
        let text = pack(&dir).unwrap();
        fs::remove_dir_all(dir).unwrap();
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), ["07", "00ff10"]);
    }

    #[test]
    fn what_libfuzzer_tells_is_read() {
        let mut report = Report::default();
        for line in [
            "==17== ERROR: libFuzzer: deadly signal",
            "artifact_prefix='/x/'; Test unit written to /x/crash-1b",
            "stat::number_of_executed_units: 1234",
        ] {
            report.read(line);
        }
        assert_eq!(report, Report { inputs: 1_234, find: Some(PathBuf::from("/x/crash-1b")), failure: None });
    }
}
