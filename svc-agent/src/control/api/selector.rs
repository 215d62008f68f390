//! Label selectors as `kubectl -l` takes them: `app=web,tier!=db,zone in (a, b),!old,new`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// What labels must be; all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    /// `None` if any value will do.
    values: Option<Vec<String>>,
    /// It must not be so.
    not: bool,
}

impl Selector {
    /// Whether `metadata.labels` of an object are as they must be.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|metadata| metadata.get("labels"));
        self.0.iter().all(|wanted| {
            let found = labels.and_then(|labels| labels.get(&wanted.key)).and_then(Value::as_str);
            let is_so = match (&wanted.values, found) {
                (None, found) => found.is_some(),
                (Some(values), Some(found)) => values.iter().any(|value| value == found),
                (Some(_), None) => false,
            };
            is_so != wanted.not
        })
    }

    /// `key=value` pairs, if it has nothing else.
    pub fn pairs(&self) -> Option<Vec<(&str, &str)>> {
        let all = self.0.iter().map(|wanted| match (wanted.values.as_deref(), wanted.not) {
            (Some([value]), false) => Some((wanted.key.as_str(), value.as_str())),
            _ => None,
        });
        all.collect()
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "found the selector `{text}`, expected terms such as app=web, app!=web, app in (a,b), app notin (a), app or !app, separated by commas"
            )
        };
        let mut all = Vec::new();
        for term in terms(text) {
            let term = term.trim();
            if term.is_empty() {
                return Err(wrong());
            }
            all.push(requirement(term).filter(|wanted| is_key(&wanted.key)).ok_or_else(wrong)?);
        }
        Ok(Self(all))
    }
}

/// Splits at the commas outside of parentheses; nothing for an empty text.
fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.push(text.get(start..index).unwrap_or_default());
                start = index + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        terms.push(text.get(start..).unwrap_or_default());
    }
    terms
}

fn requirement(term: &str) -> Option<Requirement> {
    let made = |key: &str, values: Option<Vec<&str>>, not| Requirement {
        key: key.trim().to_owned(),
        values: values.map(|values| values.into_iter().map(|value| value.trim().to_owned()).collect()),
        not,
    };
    if let Some((key, value)) = term.split_once("!=") {
        return Some(made(key, Some(vec![value]), true));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Some(made(key, Some(vec![value]), false));
    }
    if let Some((head, list)) = term.split_once('(') {
        let values = list.trim_end().strip_suffix(')')?.split(',').collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => Some(made(key, Some(values), false)),
            "notin" => Some(made(key, Some(values), true)),
            _ => None,
        };
    }
    match term.strip_prefix('!') {
        Some(key) => Some(made(key, None, true)),
        None => Some(made(term, None, false)),
    }
}

/// A name, with a domain before it or not; its exact rules do not matter, as no other label exists.
fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, values, not }) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match (values.as_deref(), not) {
                (None, false) => write!(f, "{key}")?,
                (None, true) => write!(f, "!{key}")?,
                (Some([value]), false) => write!(f, "{key}={value}")?,
                (Some([value]), true) => write!(f, "{key}!={value}")?,
                (Some(values), false) => write!(f, "{key} in ({})", values.join(","))?,
                (Some(values), true) => write!(f, "{key} notin ({})", values.join(","))?,
            }
        }
        Ok(())
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_as_kubectl_does() {
        let object = json!({"metadata": {"labels": {"app": "web", "x.io/tier": "front", "empty": ""}}});
        for (text, wanted) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , x.io/tier=front", true),
            ("app=web,x.io/tier=back", false),
            ("app!=web", false),
            ("gone!=web", true),
            ("app", true),
            ("gone", false),
            ("!gone", true),
            ("!app", false),
            ("app in (db, web)", true),
            ("app in (db)", false),
            ("app notin (db,web)", false),
            ("gone notin (db)", true),
            ("app in (web),!gone", true),
            ("empty=", true),
            ("app=", false),
        ] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.matches(&object), wanted, "{text}");
            assert_eq!(selector.to_string().parse(), Ok(selector), "{text}");
            assert_eq!(
                text.parse::<Selector>().unwrap().matches(&json!({})),
                ["", "gone!=web", "!gone", "gone notin (db)", "app!=web", "!app", "app notin (db,web)"].contains(&text),
                "{text}"
            );
        }
    }

    #[test]
    fn pairs_are_all_or_none() {
        let pairs = |text: &str| text.parse::<Selector>().unwrap().pairs().map(|pairs| pairs.len());
        assert_eq!([pairs("a=b,c=d"), pairs("a=b,c!=d"), pairs("a"), pairs("")], [Some(2), None, None, Some(0)]);
    }

    #[test]
    fn nonsense_is_answered_with_what_was_expected() {
        for text in [",", "a=b,", "=b", "a b", "a in b", "a in (b", "in (b)", "a near (b)", "!", "a=b,,c=d", "a&b=c"] {
            let error = text.parse::<Selector>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")) && error.contains("app in (a,b)"), "{error}");
        }
    }
}
