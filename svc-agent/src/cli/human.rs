//! Numbers and times for people.

/// A count or a number of bytes: exact below 10,000, then three digits and k, M, G, T, P or E for powers of 1,000.
pub fn number(value: u64) -> String {
    if value < 10_000 {
        return value.to_string();
    }
    let mut unit = 1_u64;
    let mut letter = ' ';
    for next in ['k', 'M', 'G', 'T', 'P', 'E'] {
        if value / unit < 1000 {
            break;
        }
        unit *= 1000;
        letter = next;
    }
    let whole = value / unit;
    let tenth = value % unit / (unit / 10);
    if whole < 100 { format!("{whole}.{tenth}{letter}") } else { format!("{whole}{letter}") }
}

/// A time span: its two largest units.
pub fn seconds(value: u64) -> String {
    let (days, hours, minutes, seconds) = (value / 86_400, value / 3600 % 24, value / 60 % 60, value % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{seconds}s"),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// What terminals could obey is shown as `?`.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The words separated by commas, or what stands for none.
pub fn joined(words: impl IntoIterator<Item = impl ToString>) -> String {
    let mut all: Vec<String> = Vec::new();
    for word in words {
        let word = word.to_string();
        if !all.contains(&word) {
            all.push(word);
        }
    }
    or_none(all.join(","))
}

/// The text, or what stands for none.
pub fn or_none(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "<none>".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_while_short_and_rounded_down_then() {
        for (value, wanted) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (99_950, "99.9k"),
            (123_456, "123k"),
            (999_999, "999k"),
            (1_234_567, "1.2M"),
            (5_000_000_000, "5.0G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(number(value), wanted);
        }
    }

    #[test]
    fn times_have_at_most_two_units() {
        for (value, wanted) in
            [(0, "0s"), (59, "59s"), (60, "1m0s"), (3_599, "59m59s"), (11_525, "3h12m"), (90_000, "1d1h")]
        {
            assert_eq!(seconds(value), wanted);
        }
    }

    #[test]
    fn words_are_told_once_and_terminals_obey_nothing() {
        assert_eq!(joined(["a", "b", "a"]), "a,b");
        assert_eq!(joined(Vec::<String>::new()), "<none>");
        assert_eq!(harmless("a\x1b[31mb\n"), "a?[31mb?");
    }
}
