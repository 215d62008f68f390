//! How old something is, in the way of `kubectl get`.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// The age of an object by its creation, as a column has it.
pub fn age(object: &Value) -> String {
    let created = object.get("metadata").and_then(|metadata| metadata.get("creationTimestamp")).and_then(Value::as_str);
    match created.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(created) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            span(i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(created.as_second()))
        }
        None => "<unknown>".into(),
    }
}

/// One or two units, the second one only while it says something.
pub fn span(seconds: i64) -> String {
    // A clock may be a little behind.
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, one: &str, small: i64, two: &str| {
        if small == 0 { format!("{large}{one}") } else { format!("{large}{one}{small}{two}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else if days < 730 {
        format!("{days}d")
    } else if days < 8 * 365 {
        two(days / 365, "y", days % 365, "d")
    } else {
        format!("{}y", days / 365)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_read_as_kubectl_writes_them() {
        for (seconds, wanted) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(span(seconds), wanted, "{seconds}");
        }
    }

    #[test]
    fn an_age_needs_a_time() {
        assert_eq!(age(&json!({"metadata": {}})), "<unknown>");
        assert_eq!(age(&json!({"metadata": {"creationTimestamp": "soon"}})), "<unknown>");
        assert!(age(&json!({"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}})).ends_with('y'));
    }
}
