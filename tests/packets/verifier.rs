//! What the kernel's verifier says of the programs.

use aya::programs::Program;
use svc_agent::attach::debug_log;
use svc_tests::oracle::with_oracle;

/// The verifier gives up after a million instructions; a program that is near that is one change, or one older kernel, away from
/// not loading.
#[test]
fn every_program_needs_at_most_half_of_the_verifiers_limit() {
    const LIMIT: u32 = 1_000_000;
    with_oracle(|oracle| {
        oracle.load_all();
        let mut counts: Vec<(String, u32)> = Vec::new();
        for (name, program) in oracle.kernel().programs() {
            let info = match program {
                Program::Xdp(program) => program.info(),
                Program::SchedClassifier(program) => program.info(),
                _ => continue,
            };
            // Not loaded by these tests, or before Linux 5.16, which does not tell.
            let Ok(info) = info else { continue };
            let Some(count) = info.verified_instruction_count() else { continue };
            counts.push((name.to_owned(), count));
        }
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (name, count) in &counts {
            println!("{name:<24} {count:>8} verified instructions");
        }
        let too_many: Vec<_> = counts.iter().filter(|(_, count)| *count > LIMIT / 2).collect();
        assert!(too_many.is_empty(), "{too_many:?}");
    });
}

/// Lines for the log cost time; they are for objects of `cargo xtask build --debug-log`.
#[test]
fn ordinary_programs_have_no_map_for_a_log() {
    with_oracle(|oracle| {
        let maps: Vec<_> = oracle.kernel().maps().map(|(name, _)| name).collect();
        assert!(maps.contains(&"FLOWS_V4") && !maps.contains(&debug_log::MAP), "{maps:?}");
    });
}
