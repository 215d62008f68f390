//! What an operator is told about the objects.

use std::fmt;

use super::ServiceName;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Something was asked for and is not done.
    Error,
    /// It is done, but probably not what was meant.
    Warning,
    /// Good to know.
    Notice,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        })
    }
}

/// One problem: where, what was found, what was expected, and the remedy if there is one. One line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The line.
    pub text: String,
    /// The Service that it is about, where somebody is to be told.
    pub about: Option<ServiceName>,
}

impl Problem {
    /// Something that was asked for and is not done.
    pub fn error(text: impl Into<String>) -> Self {
        Self { severity: Severity::Error, text: text.into(), about: None }
    }

    /// Something done that was probably not meant.
    pub fn warning(text: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, text: text.into(), about: None }
    }

    /// Something good to know.
    pub fn notice(text: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, text: text.into(), about: None }
    }
}

impl Problem {
    /// The same about a Service.
    #[must_use]
    pub fn about(self, service: &ServiceName) -> Self {
        Self { about: Some(service.clone()), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.text)
    }
}
