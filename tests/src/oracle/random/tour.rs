//! Many histories, by several threads: until so many packets were compared, or a difference was found.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use svc_common::{outcome::Outcome, reason::Reason};

use super::{dice::Dice, shrink, story::Story};
use crate::oracle::{Oracle, in_namespace};

/// Steps of one history.
const STEPS: usize = 1_000;
/// Steps between two whole comparisons.
const PERIOD: usize = 500;
/// The seed of an ordinary run, so that two runs of one state of the code say the same.
const SEED: u64 = 0x5eed;

/// How much, and which.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Packets to be compared.
    pub packets: u64,
    /// Seed of everything.
    pub seed: u64,
    /// Only this history.
    pub history: Option<u64>,
}

impl Plan {
    /// What `SVC_ORACLE_PACKETS`, `SVC_ORACLE_SEED` and `SVC_ORACLE_HISTORY` say; a million packets otherwise.
    pub fn of_environment() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name}: found `{text}`, expected a number")))
        };
        Self {
            packets: number("SVC_ORACLE_PACKETS").unwrap_or(1_000_000),
            seed: number("SVC_ORACLE_SEED").unwrap_or(SEED),
            history: number("SVC_ORACLE_HISTORY"),
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Packets compared.
    pub packets: u64,
    /// Histories run.
    pub histories: u64,
    /// How often each outcome, by name.
    pub outcomes: BTreeMap<String, u64>,
    /// How often each reason was counted.
    pub reasons: BTreeMap<Reason, u64>,
    /// How long it took.
    pub duration: Duration,
}

impl Summary {
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.histories += other.histories;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += count;
        }
        for (reason, count) in &other.reasons {
            *self.reasons.entry(*reason).or_default() += count;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.packets as f64 / self.duration.as_secs_f64();
        writeln!(
            f,
            "{} packets in {} histories, {:.1} s, {per_second:.0} packets/s",
            self.packets,
            self.histories,
            self.duration.as_secs_f64()
        )?;
        for (outcome, count) in &self.outcomes {
            writeln!(f, "  {outcome:<12} {count:>9}")?;
        }
        for reason in Reason::ALL {
            writeln!(f, "  {:<28} {:>9}", reason.code(), self.reasons.get(reason).copied().unwrap_or(0))?;
        }
        Ok(())
    }
}

/// Runs the plan on the loaded programs and the host compilation; nothing without the privilege or the programs.
///
/// # Errors
/// The shortest history found that shows a difference.
pub fn tour(plan: Plan) -> Option<Result<Summary, String>> {
    let start = Instant::now();
    let next = AtomicU64::new(plan.history.unwrap_or(0));
    let stop = AtomicBool::new(false);
    let packets = AtomicU64::new(0);
    let sum = Mutex::new(Summary::default());
    let failure = Mutex::new(None);
    let threads = if plan.history.is_some() { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let traveller = |oracle: &mut Oracle| {
        let mut seen = Summary::default();
        while !stop.load(Ordering::Relaxed) {
            let history = next.fetch_add(1, Ordering::Relaxed);
            let steps = steps(plan.seed, history);
            let before = seen.packets;
            if let Err(first) = run(oracle, &steps, &mut seen) {
                stop.store(true, Ordering::Relaxed);
                let told = shrink::shrunk(oracle, &steps, &first);
                let again = format!("SVC_ORACLE_SEED={} SVC_ORACLE_HISTORY={history}", plan.seed);
                *failure.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(format!("kernel and host differ; {again} finds it again\n{told}"));
            }
            let new = seen.packets - before;
            if packets.fetch_add(new, Ordering::Relaxed) + new >= plan.packets || plan.history.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        sum.lock().unwrap_or_else(PoisonError::into_inner).add(&seen);
    };
    let ran = std::thread::scope(|scope| {
        let travellers: Vec<_> = (0..threads).map(|_| scope.spawn(|| in_namespace(traveller))).collect();
        travellers.into_iter().all(|traveller| match traveller.join() {
            Ok(ran) => ran.is_some(),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    if !ran {
        return None;
    }
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.duration = start.elapsed();
    Some(match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(sum),
    })
}

/// The steps of a history: any of them alone seeds all that it does.
fn steps(seed: u64, history: u64) -> Vec<u64> {
    let mut dice = Dice::Seed(seed ^ history.wrapping_mul(0xa076_1d64_78bd_642f));
    (0..STEPS).map(|_| dice.word()).collect()
}

fn run(oracle: &mut Oracle, steps: &[u64], seen: &mut Summary) -> Result<(), String> {
    let mut story = Story::begin(oracle);
    for chunk in steps.chunks(PERIOD) {
        for seed in chunk {
            if let Some(run) = story.step(oracle, &mut Dice::Seed(*seed))? {
                seen.packets += 1;
                *seen.outcomes.entry(name(run.outcome)).or_default() += 1;
            }
        }
        if let Some(difference) = oracle.difference() {
            return Err(difference);
        }
    }
    for (reason, count) in &oracle.memory.counters {
        *seen.reasons.entry(*reason).or_default() += count;
    }
    seen.histories += 1;
    Ok(())
}

/// The outcome without its device or reason.
fn name(outcome: Outcome) -> String {
    let name = format!("{outcome:?}");
    name.split('(').next().unwrap_or_default().to_lowercase()
}
