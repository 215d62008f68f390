//! `cargo xtask test`: builds every test and runs what this user may run.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::summary::Summary;
use crate::toolchain::Toolchain;
use crate::{build, run, setup, vm};

/// A test binary that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(1_800);

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Compare twenty million random packets between kernel and host instead of one million, from a seed of its own
    #[arg(long)]
    long: bool,
}

/// Packets of `--long`.
const LONG: u64 = 20_000_000;

/// Sets up, builds, tests, and prints the sum as the last line.
///
/// # Errors
/// If a test failed, or nothing could be built at all.
pub fn run(args: &Args) -> Result<()> {
    let toolchain = setup::for_build()?;
    let object = build::kernel_programs(&toolchain)?;
    let binaries = build_tests(&toolchain, &object)?;
    let mut session = Session { args, object: &object, sum: Summary::default(), notes: Vec::new() };
    for name in missing(&toolchain, &binaries)? {
        session.sum.failed += 1;
        session.notes.push(format!("FAILED to build: {name}"));
    }
    let (privileged, ordinary): (Vec<_>, Vec<_>) = binaries.iter().partition(|binary| binary.privileged);
    for binary in ordinary {
        session.run(binary)?;
    }
    session.documentation(&toolchain)?;
    for binary in privileged {
        if run::is_root() {
            session.run(binary)?;
        } else {
            session.leave_out(binary);
        }
    }
    if args.filter.is_none() && !args.long {
        session.machines(&binaries)?;
    }
    for note in &session.notes {
        println!("{note}");
    }
    println!("{}", session.sum);
    if session.sum.failed > 0 {
        // The sum has said it all, and has to stay the last line.
        std::process::exit(1);
    }
    Ok(())
}

/// A built test binary.
#[derive(Clone, Debug)]
struct Binary {
    /// Package and target, e.g. `svc-tests::packets`.
    name: String,
    file: PathBuf,
    /// Where cargo would run it: its package's directory.
    home: PathBuf,
    privileged: bool,
}

/// Builds all tests and the binaries that they run; those that do not compile are missing from the result.
fn build_tests(toolchain: &Toolchain, object: &Path) -> Result<Vec<Binary>> {
    let mut cargo = toolchain.cargo("build");
    cargo.args(["--quiet", "--bins", "--tests", "--keep-going", "--message-format=json-render-diagnostics"]);
    let output = cargo.env("SVC_EBPF_OBJECT", object).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    let artifacts = String::from_utf8_lossy(&output.stdout);
    Ok(artifacts.lines().filter_map(|line| binary(&serde_json::from_str(line).ok()?)).collect())
}

/// The test binaries that need root, by the names of their targets.
///
/// # Errors
/// If one does not compile.
pub fn privileged_binaries(toolchain: &Toolchain, object: &Path) -> Result<Vec<(String, PathBuf)>> {
    let built = build_tests(toolchain, object)?;
    let missing = missing(toolchain, &built)?;
    if !missing.is_empty() {
        bail!("tests do not build: {missing:?}");
    }
    let privileged = built.into_iter().filter(|binary| binary.privileged);
    let target = |name: &str| name.split("::").nth(1)?.split(' ').next().map(str::to_owned);
    Ok(privileged.filter_map(|binary| Some((target(&binary.name)?, binary.file))).collect())
}

/// Reads one of cargo's messages, if it announces a test binary.
fn binary(message: &Value) -> Option<Binary> {
    if !message.pointer("/profile/test")?.as_bool()? {
        return None;
    }
    let file = PathBuf::from(message.get("executable")?.as_str()?);
    let home = Path::new(message.get("manifest_path")?.as_str()?).parent()?.to_path_buf();
    let target = message.get("target")?;
    let package = package_of(&home, message);
    // Integration tests load programs and make namespaces; what needs neither stands beside the code.
    let privileged = kind(target) == Some("test");
    Some(Binary { name: target_name(&package, target)?, file, home, privileged })
}

fn package_of(home: &Path, message: &Value) -> String {
    // `path+file:///dir/tests#svc-tests@0.1.0`, without the name where it equals the directory's.
    let id = message.get("package_id").and_then(Value::as_str).unwrap_or_default();
    let fragment = id.rsplit('#').next().unwrap_or_default();
    match fragment.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => home.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

fn kind(target: &Value) -> Option<&str> {
    target.pointer("/kind/0")?.as_str()
}

fn target_name(package: &str, target: &Value) -> Option<String> {
    Some(format!("{package}::{} ({})", target.get("name")?.as_str()?, kind(target)?))
}

/// Test targets that the workspace declares and that were not built.
fn missing(toolchain: &Toolchain, built: &[Binary]) -> Result<BTreeSet<String>> {
    let mut cargo = toolchain.cargo("metadata");
    let text =
        run::quiet(cargo.args(["--no-deps", "--format-version=1", "--locked"]), "repair Cargo.toml and Cargo.lock")?;
    let metadata: Value = serde_json::from_str(&text).context("cannot read what `cargo metadata` prints")?;
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let default_members = list(&metadata, "workspace_default_members");
    let mut names = BTreeSet::new();
    for package in list(&metadata, "packages") {
        if !package.get("id").is_some_and(|id| default_members.contains(id)) {
            continue;
        }
        let package_name = package.get("name").and_then(Value::as_str).unwrap_or_default();
        for target in list(&package, "targets") {
            if target.get("test").and_then(Value::as_bool) == Some(true) {
                names.extend(target_name(package_name, &target));
            }
        }
    }
    for binary in built {
        names.remove(&binary.name);
    }
    if built.is_empty() && !names.is_empty() {
        bail!("no test was built");
    }
    Ok(names)
}

/// One run of everything.
struct Session<'a> {
    args: &'a Args,
    object: &'a Path,
    sum: Summary,
    /// What the reader has to know besides the numbers; printed before them.
    notes: Vec<String>,
}

impl Session<'_> {
    fn run(&mut self, binary: &Binary) -> Result<()> {
        let skips = std::env::temp_dir().join(format!("svct-skips-{}", std::process::id()));
        let mut command = Command::new(&binary.file);
        command.args(&self.args.filter).current_dir(&binary.home);
        command.env("SVC_EBPF_OBJECT", self.object).env("SVC_TEST_SKIPS", &skips);
        if self.args.long {
            let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            command.env("SVC_ORACLE_PACKETS", LONG.to_string()).env("SVC_ORACLE_SEED", seed.to_string());
        }
        // Errors name what they are about; where each was made is noise in a report.
        command.env("RUST_LIB_BACKTRACE", "0");
        println!("\n== {}", binary.name);
        let (lines, problem) = watched(&mut command)?;
        self.count(&binary.name, &lines, problem);
        let skipped = std::fs::read_to_string(&skips).unwrap_or_default();
        let _ = std::fs::remove_file(&skips);
        self.skips(&binary.name, skipped.lines());
        Ok(())
    }

    /// Examples in the documentation.
    fn documentation(&mut self, toolchain: &Toolchain) -> Result<()> {
        let mut cargo = toolchain.cargo("test");
        cargo
            .args(["--quiet", "--doc", "--package", "svc-common", "--package", "svc-agent", "--"])
            .args(&self.args.filter);
        println!("\n== documentation");
        let (lines, problem) = watched(cargo.env("SVC_EBPF_OBJECT", self.object))?;
        self.count("documentation", &lines, problem);
        Ok(())
    }

    /// The packet tests on other kernels, in virtual machines. One that cannot be had is named; it is no failure, as a machine
    /// without a way to Debian's archive has none.
    fn machines(&mut self, binaries: &[Binary]) -> Result<()> {
        println!("\n== packet tests on kernels {}", vm::tests::KERNELS.join(" and "));
        let Some(packets) = binaries.iter().find(|binary| binary.name.contains("::packets ")) else { return Ok(()) };
        for outcome in vm::tests::run(packets.file.clone()) {
            let name = format!("kernel {}, svc-tests::packets", outcome.series);
            match outcome.result {
                Ok((lines, problem)) => {
                    self.count(&name, &lines, problem);
                    self.skips(&name, lines.iter().filter_map(|line| line.strip_prefix(vm::tests::SKIP)));
                }
                Err(error) => {
                    self.sum.skipped += 1;
                    self.notes.push(format!("SKIPPED {name}: {error:#}"));
                }
            }
        }
        Ok(())
    }

    /// Tests that found at run time that they cannot prove anything here have told their names and reasons.
    fn skips<'t>(&mut self, name: &str, lines: impl Iterator<Item = &'t str>) {
        for line in lines {
            self.sum.passed = self.sum.passed.saturating_sub(1);
            self.sum.skipped += 1;
            self.notes.push(format!("SKIPPED {name}: {line}"));
        }
    }

    fn count(&mut self, name: &str, lines: &[String], problem: Option<String>) {
        let (sum, ignored) = Summary::of_output(lines, problem.is_none());
        self.notes.extend(ignored.into_iter().map(|test| format!("SKIPPED {name}: {test}")));
        if let Some(problem) = problem {
            self.notes.push(format!("FAILED {name}: {problem}"));
            let failed = lines.iter().filter_map(|line| line.strip_suffix(" ... FAILED"));
            self.notes.extend(failed.map(|test| format!("  {test}")));
        }
        self.sum.add(sum);
    }

    fn leave_out(&mut self, binary: &Binary) {
        let list = run::asked(Command::new(&binary.file).arg("--list").args(&self.args.filter)).unwrap_or_default();
        let names: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        self.sum.skipped += names.len();
        self.notes.extend(names.iter().map(|name| format!("SKIPPED {}: {name}: needs root", binary.name)));
    }
}

/// Runs a test binary, repeats its output as it comes, and returns it with what went wrong, if anything did.
fn watched(command: &mut Command) -> Result<(Vec<String>, Option<String>)> {
    let line = run::shown(command);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{line}`"))?;
    let stdout = child.stdout.take().context("no pipe to the test's output")?;
    let (sender, receiver) = mpsc::channel();
    // Ends with the pipe: when the test and all that it started have closed it.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + LIMIT;
    let mut lines = Vec::new();
    let mut ended = false;
    loop {
        match receiver.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                println!("{line}");
                lines.push(line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            // A process that a test left behind may hold the pipe open for ever.
            Err(mpsc::RecvTimeoutError::Timeout) if ended => break,
            // Silence from here on is the end; what it said between the silence before and its end is still to come.
            Err(mpsc::RecvTimeoutError::Timeout) => ended = child.try_wait()?.is_some(),
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok((lines, Some(format!("took longer than {} s and was killed", LIMIT.as_secs()))));
        }
    }
    let status = child.wait()?;
    Ok((lines, (!status.success()).then(|| status.to_string())))
}
