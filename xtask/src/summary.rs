//! Adds up what test binaries report.

use std::fmt;

/// Tests by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Did what they should.
    pub passed: usize,
    /// Did not, or could not be built or run to their end.
    pub failed: usize,
    /// Were not run.
    pub skipped: usize,
}

impl Summary {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// What the lines of one test binary's output say, and the names of the tests that it ignored.
    ///
    /// A binary may report several results (documentation tests do) and counts as a failure of its own if it ends in
    /// failure without having reported one.
    pub fn of_output(lines: &[String], success: bool) -> (Self, Vec<String>) {
        let mut sum = Self::default();
        for line in lines {
            if let Some(rest) = line.strip_prefix("test result: ") {
                sum.passed += number_before(rest, " passed");
                sum.failed += number_before(rest, " failed");
                sum.skipped += number_before(rest, " ignored");
            }
        }
        let verdict = |line: &&String, word: &str| line.starts_with("test ") && line.ends_with(word);
        if !success && sum.failed == 0 {
            // It crashed: what it had finished still counts.
            sum.passed = sum.passed.max(lines.iter().filter(|line| verdict(line, "... ok")).count());
            sum.failed = 1;
        }
        let ignored = lines.iter().filter_map(|line| {
            let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
            rest.starts_with("ignored").then(|| name.to_owned())
        });
        (sum, ignored.collect())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.skipped > 0 {
            // In a line of its own: who reads the last one alone expects two numbers.
            writeln!(f, "{} skipped, as said above", self.skipped)?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

fn number_before(text: &str, word: &str) -> usize {
    let head = text.split_once(word).map_or("", |(head, _)| head);
    head.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, success: bool, shown: &str, ignored: &[&str]) {
        let lines: Vec<String> = output.lines().map(str::to_owned).collect();
        let (sum, names) = Summary::of_output(&lines, success);
        assert_eq!((sum.to_string().as_str(), names), (shown, ignored.iter().map(|&name| name.to_owned()).collect()));
    }

    #[test]
    fn results_are_read_from_the_output() {
        let result = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        check(result, true, "12 passed, 0 failed", &[]);
        check(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            false,
            "1 passed, 2 failed",
            &[],
        );
        check(
            "test a::b ... ignored, slow\ntest result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            true,
            "1 skipped, as said above\n0 passed, 0 failed",
            &["a::b"],
        );
    }

    #[test]
    fn a_crash_is_a_failure() {
        check("running 3 tests\ntest a ... ok\ntest b ... ", false, "1 passed, 1 failed", &[]);
        check("", false, "0 passed, 1 failed", &[]);
    }
}
