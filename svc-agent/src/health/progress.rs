//! Whether the agent gets on: not that it is there, but that what was asked of it is done.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest time between two passes of the sync loop, whether there is something to do or not.
pub const PERIOD: Duration = Duration::from_secs(30);

/// How the sync loop gets on.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// When the loop was seen last.
    alive: Option<Instant>,
    /// Since when something is wanted that is not done.
    wanted: Option<Instant>,
    /// When everything was done last.
    done: Option<Instant>,
}

impl Progress {
    /// Something is wanted.
    pub fn wanted(&self, now: Instant) {
        let mut state = self.state();
        state.alive = Some(now);
        state.wanted.get_or_insert(now);
    }

    /// A pass has ended, and did what was wanted or failed as a whole.
    pub fn passed(&self, now: Instant, done: bool) {
        let mut state = self.state();
        state.alive = Some(now);
        if done {
            state.wanted = None;
            state.done = Some(now);
        }
    }

    /// When everything was done last.
    pub fn done(&self) -> Option<Instant> {
        self.state().done
    }

    /// Nothing was done for two periods although something was wanted, or the loop was not seen for as long.
    pub fn is_stale(&self, now: Instant) -> bool {
        let state = *self.state();
        let old = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) > 2 * PERIOD);
        old(state.wanted) || old(state.alive)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b62_only_work_that_is_not_done_makes_stale() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let progress = Progress::default();
        assert!(!progress.is_stale(at(1000)), "before the first pass");
        progress.wanted(at(0));
        progress.passed(at(1), true);
        assert!(!progress.is_stale(at(61)));
        assert!(progress.is_stale(at(62)), "the loop was not seen for two periods");
        // It is there, but fails.
        for second in (10..=100).step_by(10) {
            progress.wanted(at(second));
            progress.passed(at(second + 1), false);
            assert_eq!(progress.is_stale(at(second + 2)), second + 2 > 70, "{second}");
        }
        progress.passed(at(102), true);
        assert!(!progress.is_stale(at(103)));
        assert_eq!(progress.done(), Some(at(102)));
    }
}
