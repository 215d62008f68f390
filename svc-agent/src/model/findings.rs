//! What is wrong with the fields of one object, gathered so that all of it is told at once.

use super::Severity;

/// One field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is: an error refuses the object, unless the text says that only a part is left out.
    pub severity: Severity,
    /// The field, like `spec.ports[0].port`.
    pub path: String,
    /// Found, expected, remedy.
    pub text: String,
}

/// The findings of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    all: Vec<Finding>,
    refused: bool,
}

impl Findings {
    /// The object cannot be used because of this field.
    pub fn refuse(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.refused = true;
        self.all.push(Finding { severity: Severity::Error, path: path.into(), text: text.into() });
    }

    /// A part of the object cannot be used and is left out; the rest stays.
    pub fn leave_out(&mut self, path: impl Into<String>, text: impl Into<String>) {
        let text = format!("{}; it is left out", text.into());
        self.all.push(Finding { severity: Severity::Error, path: path.into(), text });
    }

    /// The object is used, but this is probably not what was meant.
    pub fn warn(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.all.push(Finding { severity: Severity::Warning, path: path.into(), text: text.into() });
    }

    /// Good to know.
    pub fn note(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.all.push(Finding { severity: Severity::Notice, path: path.into(), text: text.into() });
    }

    /// Whether the object must not be used.
    pub fn refused(&self) -> bool {
        self.refused
    }

    /// Everything found so far, in the order it was found.
    pub fn all(&self) -> &[Finding] {
        &self.all
    }

    /// Adds what a later step found, except about fields that are known to be bad already.
    pub fn extend_beyond(&mut self, later: Self) {
        self.refused |= later.refused;
        for finding in later.all {
            let known = self.all.iter().any(|earlier| {
                earlier.severity == Severity::Error
                    && (covers(&earlier.path, &finding.path) || covers(&finding.path, &earlier.path))
            });
            if !known {
                self.all.push(finding);
            }
        }
    }
}

/// Whether `inner` is `outer` or a field below it.
fn covers(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_known_to_be_bad_is_told_once() {
        let mut first = Findings::default();
        first.refuse("spec.ports[0].port", "found the string \"80\", expected a number");
        let mut later = Findings::default();
        later.refuse("spec.ports[0].port", "found 0");
        later.refuse("spec.ports[0].protocol", "found `X`");
        later.refuse("spec.ports[1].port", "found 0");
        first.extend_beyond(later);
        let paths: Vec<&str> = first.all().iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["spec.ports[0].port", "spec.ports[0].protocol", "spec.ports[1].port"]);
        assert!(first.refused());
    }

    #[test]
    fn what_is_left_out_does_not_refuse_the_rest() {
        let mut findings = Findings::default();
        findings.leave_out("subsets[0].addresses[0].ip", "found `127.0.0.1`");
        assert!(!findings.refused());
        assert_eq!(findings.all()[0].severity, Severity::Error);
    }
}
