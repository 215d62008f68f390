//! From single answers to a verdict. Pure.

use crate::model::HealthCheck;

/// What is known of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Healthy, or why not; `None` before the first answer.
    verdict: Option<Result<(), String>>,
    /// Answers in a row that contradict the verdict.
    against: u32,
}

impl State {
    /// Takes an answer into account; true if the verdict changed.
    ///
    /// The first answer decides alone: a dead endpoint should not have to fail several times before anything is known.
    pub fn take(&mut self, check: &HealthCheck, answer: Result<(), String>) -> bool {
        let Some(verdict) = &mut self.verdict else {
            self.verdict = Some(answer);
            return true;
        };
        if verdict.is_ok() == answer.is_ok() {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < if answer.is_ok() { check.healthy } else { check.unhealthy } {
            return false;
        }
        self.against = 0;
        *verdict = answer;
        true
    }

    /// Why it is not healthy, if so.
    pub fn failing(&self) -> Option<&str> {
        self.verdict.as_ref().and_then(|verdict| verdict.as_ref().err()).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CheckKind;

    #[test]
    fn the_verdict_follows_answers_in_a_row() {
        let check =
            HealthCheck { kind: CheckKind::Tcp, port: None, interval_s: 1, timeout_s: 1, healthy: 2, unhealthy: 3 };
        for (answers, expected) in [
            ("", ""),
            ("+", "+"),
            ("-", "-"),
            // Healthy until three bad ones follow each other, then unhealthy until two good ones do.
            ("+--+--+---++", "++++++++\u{2b}--+"),
            ("-+-+-++--", "------+++"),
        ] {
            let mut state = State::default();
            let mut got = String::new();
            for answer in answers.chars() {
                let before = state.clone();
                let changed = state.take(&check, if answer == '+' { Ok(()) } else { Err("x".to_owned()) });
                assert_eq!(changed, before.verdict.is_none() || before.failing() != state.failing());
                got.push(if state.failing().is_none() { '+' } else { '-' });
            }
            assert_eq!(got, expected, "{answers}");
        }
    }
}
