//! Names as Kubernetes allows them, and found text made fit to print.

/// At most this many characters of something found are shown.
const SHOWN: usize = 64;

/// Something found, in backticks: control characters escaped, long text cut.
pub fn quote(text: &str) -> String {
    format!("`{}`", escape(text))
}

/// Something found, fit for one line of a log: control characters escaped, long text cut.
pub fn escape(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(escape_char).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

fn escape_char(c: char) -> impl Iterator<Item = char> {
    // Control characters could forge log lines or drive a terminal; so could the marks that change text direction.
    let hidden =
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let (escaped, plain) = if hidden { (Some(c.escape_default()), None) } else { (None, Some(c)) };
    escaped.into_iter().flatten().chain(plain)
}

/// What is wrong with a DNS label (RFC 1123): at most 63 of a-z, 0-9 and `-`, the ends no `-`.
pub fn dns_label(text: &str) -> Result<(), String> {
    if !text.is_empty() && text.len() <= 63 && label_chars(text) {
        return Ok(());
    }
    Err(format!(
        "found {}, expected at most 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit",
        quote(text)
    ))
}

/// What is wrong with a DNS subdomain (RFC 1123): labels with dots between, at most 253 characters.
pub fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() <= 253 && text.split('.').all(label_chars) {
        return Ok(());
    }
    Err(format!(
        "found {}, expected at most 253 of a-z, 0-9, `-` and `.`, each part beginning and ending with a letter or digit",
        quote(text)
    ))
}

/// What is wrong with the name of a port of a container (RFC 6335): at most 15 of a-z, 0-9 and `-`, with a letter.
pub fn port_name(text: &str) -> Result<(), String> {
    let ok =
        text.len() <= 15 && label_chars(text) && text.bytes().any(|b| b.is_ascii_lowercase()) && !text.contains("--");
    if ok {
        return Ok(());
    }
    Err(format!(
        "found {}, expected a port number or a name of at most 15 of a-z, 0-9 and `-` with a letter",
        quote(text)
    ))
}

/// What is wrong with the value of a label: at most 63 letters, digits, `-`, `_` and `.`, or nothing at all.
pub fn label_value(text: &str) -> Result<(), String> {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let inner = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if text.len() <= 63 && inner && edge(text.as_bytes().first()) && edge(text.as_bytes().last()) {
        return Ok(());
    }
    Err(format!(
        "found {}, expected at most 63 of letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit",
        quote(text)
    ))
}

fn label_chars(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The candidate that a misspelt word most likely meant, if one is close.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 2);
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance: single characters added, removed or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(SHOWN).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(SHOWN).enumerate() {
        let mut next = vec![i + 1];
        for ((to, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(from != *to);
            let left = next.last().copied().unwrap_or(i);
            next.push(replaced.min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_only_if_it_is_close() {
        let fields = ["type", "ports", "selector", "clusterIP", "clusterIPs", "externalIPs"];
        for (word, expected) in [
            ("type:", Some("type")),
            ("port", Some("ports")),
            ("clusterIp", Some("clusterIP")),
            ("externalIP", Some("externalIPs")),
            ("slector", Some("selector")),
            ("app", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, fields), expected, "{word}");
        }
    }

    #[test]
    fn what_is_found_cannot_forge_a_line() {
        assert_eq!(quote("a\nb\u{1b}[2J\u{202e}"), "`a\\nb\\u{1b}[2J\\u{202e}`");
        assert_eq!(escape(&"x".repeat(1000)).chars().count(), 65);
    }

    #[test]
    fn names_are_checked_as_the_api_server_does() {
        for good in ["a", "web-1", "0"] {
            assert_eq!(dns_label(good), Ok(()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
        assert!(dns_subdomain("web.prod-1").is_ok() && dns_subdomain("a..b").is_err() && dns_subdomain("").is_err());
        assert!(port_name("http").is_ok() && port_name("80").is_err() && port_name("a-very-long-port").is_err());
    }
}
