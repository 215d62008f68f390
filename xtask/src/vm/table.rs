//! The table of kernels in the documentation: what `svc-testkernel` says on each, and on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use super::machine::{self, Parts};
use super::qemu;
use crate::run;

const SERIES: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];
const FILE: &str = "docs/operations.md";
const BEGIN: &str = "<!-- The next table is written by `cargo xtask vm --table`. -->\n";
const END: &str = "<!-- End of that table. -->\n";
/// How `svc-testkernel` begins its lines.
const LINE: &str = "svc-testkernel: ";

/// The kernels that are asked.
///
/// # Errors
/// If one cannot be had.
pub fn kernels() -> Result<Vec<Kernel>> {
    SERIES.iter().map(|series| Kernel::find(series, None, &machine::work())).collect()
}

/// Asks all and writes the table.
///
/// # Errors
/// If a kernel cannot be asked, or the document has no place for the table.
pub fn write(kernels: &[Kernel], parts: &Parts, limit: Duration) -> Result<()> {
    // One after the other: an emulated processor takes as much as this machine has of one.
    let mut columns: Vec<_> = kernels.iter().map(|kernel| ask(kernel, parts, limit)).collect::<Result<_>>()?;
    let here =
        run::asked(&mut Command::new(parts.binaries.join("svc-testkernel"))).context("this machine's own kernel")?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    columns.push((short(release.trim()), answers(&here.lines().map(str::to_owned).collect::<Vec<_>>())));
    columns.sort_by_key(|(release, _)| numbers(release));
    let file = run::workspace().join(FILE);
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, replaced(&text, &table(&columns))?)?;
    println!("vm: wrote the table to {FILE}");
    Ok(())
}

/// Asks one kernel.
fn ask(kernel: &Kernel, parts: &Parts, limit: Duration) -> Result<(String, Answers)> {
    let mut lines = Vec::new();
    // A refused program makes the status 1, and a line of the table.
    machine::run(kernel, parts, "svc-testkernel", qemu::Size { cpus: 1, memory: 2_048 }, limit, &mut |line| {
        println!("{}: {line}", kernel.release);
        lines.push(line.to_owned());
    })?;
    Ok((short(&kernel.release), answers(&lines)))
}

/// What a kernel answered, and in which order.
type Answers = Vec<(String, String)>;

fn answers(lines: &[String]) -> Answers {
    let said = lines.iter().filter_map(|line| line.strip_prefix(LINE)?.split_once(" = "));
    said.map(|(what, answer)| (what.to_owned(), answer.to_owned())).collect()
}

fn table(columns: &[(String, Answers)]) -> String {
    let mut text = "| on kernel".to_owned();
    for (release, _) in columns {
        let _ = write!(text, " | {release}");
    }
    let _ = writeln!(text, " |\n|---{} |", "|---".repeat(columns.len()));
    let rows = columns.iter().map(|(_, answers)| answers).max_by_key(|answers| answers.len());
    for (what, _) in rows.into_iter().flatten() {
        let _ = write!(text, "| {what}");
        for (_, answers) in columns {
            let answers: BTreeMap<_, _> = answers.iter().map(|(what, answer)| (what, answer.as_str())).collect();
            let _ = write!(text, " | {}", answers.get(what).copied().unwrap_or("not told"));
        }
        text.push_str(" |\n");
    }
    text
}

fn replaced(text: &str, table: &str) -> Result<String> {
    let Some((before, rest)) = text.split_once(BEGIN) else { bail!("{FILE} has no line `{}`", BEGIN.trim()) };
    let Some((_, after)) = rest.split_once(END) else { bail!("{FILE} has no line `{}`", END.trim()) };
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

/// `5.10.0-46-cloud-amd64` without what the packager added.
fn short(release: &str) -> String {
    release.split(['-', '+']).next().unwrap_or(release).to_owned()
}

fn numbers(release: &str) -> Vec<u32> {
    release.split('.').filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_column_for_each_kernel_and_replaces_the_last_one() {
        let said = |text: &str| answers(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        let columns = [
            ("5.10.0".to_owned(), said("noise\nsvc-testkernel: tcx = no: Invalid argument")),
            ("7.2.1".to_owned(), said("svc-testkernel: tcx = yes\nsvc-testkernel: other = 3")),
        ];
        let made = table(&columns);
        assert_eq!(
            made,
            "| on kernel | 5.10.0 | 7.2.1 |\n|---|---|--- |\n| tcx | no: Invalid argument | yes |\n| other | not told | 3 |\n"
        );
        let document = replaced(&format!("before\n{BEGIN}former\n{END}after\n"), &made).unwrap();
        assert!(document.starts_with("before\n") && document.ends_with(&format!("|\n\n{END}after\n")), "{document}");
        assert!(!document.contains("former") && replaced("nothing", &made).is_err());
    }

    #[test]
    fn releases_are_sorted_as_numbers_and_lose_the_packagers_part() {
        assert_eq!(short("5.10.0-46-cloud-amd64"), "5.10.0");
        assert!(numbers(&short("7.2.12+deb14-cloud-amd64")) > numbers("6.18.44"));
    }
}
