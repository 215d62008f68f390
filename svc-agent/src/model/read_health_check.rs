//! The annotations that ask for health checks.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::findings::Findings;
use super::text::quote;
use super::{CheckKind, HealthCheck};

/// What is asked: `tcp` or `http:/path`. The other annotations begin with the same words.
const HEALTH_CHECK: &str = "svc-agent/health-check";
const PORT: &str = "svc-agent/health-check-port";
const INTERVAL: &str = "svc-agent/health-check-interval";
const TIMEOUT: &str = "svc-agent/health-check-timeout";
const HEALTHY: &str = "svc-agent/health-check-healthy-threshold";
const UNHEALTHY: &str = "svc-agent/health-check-unhealthy-threshold";
const ALL: [&str; 6] = [HEALTH_CHECK, PORT, INTERVAL, TIMEOUT, HEALTHY, UNHEALTHY];

/// Longer paths are nobody's health check.
const MAX_PATH: usize = 256;

/// The health check that annotations ask for. A wrong one is left out as a whole: endpoints are used unchecked then.
pub fn health_check(annotations: Option<&BTreeMap<String, String>>, findings: &mut Findings) -> Option<HealthCheck> {
    let annotations = annotations?;
    for key in annotations.keys().filter(|key| key.starts_with(HEALTH_CHECK)) {
        if !ALL.contains(&key.as_str()) {
            let text = format!("unknown annotation, expected one of {}", ALL.join(", "));
            findings.warn(format!("metadata.annotations[{}]", super::text::escape(key)), text);
        }
    }
    let Some(found) = annotations.get(HEALTH_CHECK) else {
        if let Some(key) = ALL.into_iter().find(|key| annotations.contains_key(*key)) {
            let text = format!("has no meaning without {HEALTH_CHECK}, which says what to check: tcp or http:/path");
            findings.warn(format!("metadata.annotations[{key}]"), text);
        }
        return None;
    };
    let mut wrong = Vec::new();
    let kind = kind(found);
    if kind.is_none() {
        let expected =
            format!("expected tcp, or http: and a path such as /healthz of at most {MAX_PATH} plain characters");
        wrong.push((HEALTH_CHECK, format!("found {}, {expected}", quote(found))));
    }
    let mut number = |key: &'static str, range: RangeInclusive<u32>, default: u32, what: &str| {
        let Some(text) = annotations.get(key) else { return default };
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let expected = format!("expected {what} from {} to {}", range.start(), range.end());
            wrong.push((key, format!("found {}, {expected}", quote(text))));
        }
        number.unwrap_or(default)
    };
    let port = number(PORT, 1..=65_535, 0, "a port");
    let check = HealthCheck {
        kind: kind.unwrap_or(CheckKind::Tcp),
        port: u16::try_from(port).ok().filter(|port| *port != 0),
        interval_s: number(INTERVAL, 1..=3600, 5, "a number of seconds"),
        timeout_s: number(TIMEOUT, 1..=60, 2, "a number of seconds"),
        healthy: number(HEALTHY, 1..=10, 2, "a number"),
        unhealthy: number(UNHEALTHY, 1..=10, 3, "a number"),
    };
    if wrong.is_empty() {
        return Some(check);
    }
    for (key, text) in wrong {
        findings.warn(format!("metadata.annotations[{key}]"), format!("{text}; its endpoints are not checked"));
    }
    None
}

fn kind(text: &str) -> Option<CheckKind> {
    if text == "tcp" {
        return Some(CheckKind::Tcp);
    }
    // It goes into a request as it is: no spaces, no line ends.
    let path = text.strip_prefix("http:")?;
    let plain = path.starts_with('/') && path.len() <= MAX_PATH && path.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| CheckKind::Http(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> (Option<HealthCheck>, Vec<String>) {
        let mut findings = Findings::default();
        let annotations =
            annotations.iter().map(|(key, value)| (format!("svc-agent/{key}"), (*value).to_owned())).collect();
        let check = health_check(Some(&annotations), &mut findings);
        assert!(!findings.refused());
        (check, findings.all().iter().map(|finding| format!("{}: {}", finding.path, finding.text)).collect())
    }

    #[test]
    fn annotations_ask_for_a_check_with_defaults() {
        let defaults =
            HealthCheck { kind: CheckKind::Tcp, port: None, interval_s: 5, timeout_s: 2, healthy: 2, unhealthy: 3 };
        assert_eq!(read(&[]), (None, vec![]));
        assert_eq!(read(&[("forwarding-mode", "dsr")]), (None, vec![]));
        assert_eq!(read(&[("health-check", "tcp")]), (Some(defaults.clone()), vec![]));
        let all = read(&[
            ("health-check", "http:/a?b=c"),
            ("health-check-port", "8081"),
            ("health-check-interval", "1"),
            ("health-check-timeout", "3"),
            ("health-check-healthy-threshold", "4"),
            ("health-check-unhealthy-threshold", "5"),
        ]);
        let kind = CheckKind::Http("/a?b=c".to_owned());
        let expected = HealthCheck { kind, port: Some(8081), interval_s: 1, timeout_s: 3, healthy: 4, unhealthy: 5 };
        assert_eq!(all, (Some(expected), vec![]));
    }

    #[test]
    fn a_wrong_annotation_is_told_and_nothing_is_checked() {
        for (annotations, expected) in [
            (vec![("health-check", "TCP")], "[svc-agent/health-check]: found `TCP`, expected tcp, or http:"),
            (vec![("health-check", "http:x")], "expected tcp, or http:"),
            (vec![("health-check", "http:/a b")], "expected tcp, or http:"),
            (vec![("health-check", "http:/a\r\nX: y")], "expected tcp, or http:"),
            (vec![("health-check", "tcp"), ("health-check-port", "0")], "found `0`, expected a port from 1 to 65535"),
            (
                vec![("health-check", "tcp"), ("health-check-interval", "5s")],
                "found `5s`, expected a number of seconds",
            ),
            (
                vec![("health-check", "tcp"), ("health-check-timeout", "61")],
                "from 1 to 60; its endpoints are not checked",
            ),
            (vec![("health-check-port", "80")], "has no meaning without svc-agent/health-check"),
        ] {
            let (check, told) = read(&annotations);
            assert!(check.is_none() && told.len() == 1 && told[0].contains(expected), "{annotations:?}: {told:?}");
        }
        let (check, told) = read(&[("health-check", "tcp"), ("health-check-intervall", "5")]);
        assert!(check.is_some() && told[0].contains("unknown annotation"), "{told:?}");
    }
}
