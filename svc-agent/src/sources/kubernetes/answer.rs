//! What an API server answers: pages of lists and lines of watches, told from garbage.

use serde::Deserialize;
use serde_json::Value;

use super::kinds::Watched;

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The version of the list as a whole.
    pub version: String,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<String>,
    /// The objects.
    pub items: Vec<Value>,
}

/// A line of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An object is there or is another one.
    Changed(Value),
    /// An object is gone; its last state.
    Deleted(Value),
    /// Everything up to this version was told.
    Bookmark(String),
    /// The version to start from is too old.
    Gone,
    /// The server gives up.
    Failed(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPage {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<RawMeta>,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// Reads a page.
///
/// # Errors
/// If it is anything else.
pub fn page(watched: Watched, bytes: &[u8]) -> Result<Page, String> {
    let expected = format!("expected a {} of {}", watched.list_kind(), watched.api_version());
    let raw: RawPage = serde_json::from_slice(bytes).map_err(|error| format!("found no JSON: {error}; {expected}"))?;
    let kind = raw.kind.unwrap_or_default();
    if kind != watched.list_kind() || raw.api_version.as_deref() != Some(watched.api_version()) {
        return Err(format!("found an object of kind `{}`, {expected}", clip(&kind)));
    }
    let meta = raw.metadata.ok_or_else(|| format!("found a list without metadata, {expected}"))?;
    let version = meta.resource_version.filter(|version| !version.is_empty());
    Ok(Page {
        version: version.ok_or_else(|| format!("found a list without resourceVersion, {expected}"))?,
        next: meta.next.filter(|next| !next.is_empty()),
        items: raw.items.unwrap_or_default(),
    })
}

/// Reads a line of a watch.
///
/// # Errors
/// If it is anything else.
pub fn event(line: &[u8]) -> Result<Event, String> {
    let raw: RawEvent = serde_json::from_slice(line).map_err(|error| format!("found no event: {error}"))?;
    match raw.kind.as_str() {
        "ADDED" | "MODIFIED" => Ok(Event::Changed(raw.object)),
        "DELETED" => Ok(Event::Deleted(raw.object)),
        "BOOKMARK" => match version(&raw.object) {
            Some(version) => Ok(Event::Bookmark(version.to_owned())),
            None => Err("found a bookmark without resourceVersion".to_owned()),
        },
        "ERROR" if raw.object.get("code").and_then(Value::as_u64) == Some(410) => Ok(Event::Gone),
        "ERROR" => {
            let message = raw.object.get("message").and_then(Value::as_str).unwrap_or("an error without a message");
            Ok(Event::Failed(clip(message)))
        }
        other => Err(format!("found an event of type `{}`", clip(other))),
    }
}

/// `metadata.resourceVersion` of an object.
pub fn version(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("resourceVersion")?.as_str().filter(|version| !version.is_empty())
}

/// What a server says of a failure, in one short line: answers may be whole HTML pages.
pub fn clip(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
    if short.len() < text.trim_end().len() {
        short.push_str("..");
    }
    short
}

/// What an answer with an error status says.
pub fn refusal(status: u16, body: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(body).ok();
    let message = message.as_ref().and_then(|value| value.get("message")).and_then(Value::as_str).map(clip);
    match message {
        Some(message) => format!("HTTP status {status}: {message}"),
        None => format!("HTTP status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_list() {
        for (text, hint) in [
            ("<html>Bad gateway</html>", "no JSON"),
            ("", "no JSON"),
            ("{\"kind\":\"ServiceList\",\"apiVersion\":\"v1\",\"items\":[", "no JSON"),
            ("[]", "no JSON"),
            ("{}", "kind ``"),
            ("{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{}}", "kind `Status`"),
            ("{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"1\"}}", "`PodList`"),
            ("{\"kind\":\"ServiceList\",\"apiVersion\":\"v1\",\"items\":[]}", "without metadata"),
            ("{\"kind\":\"ServiceList\",\"apiVersion\":\"v1\",\"metadata\":{},\"items\":[]}", "resourceVersion"),
            (
                "{\"kind\":\"ServiceList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":{}}",
                "JSON",
            ),
        ] {
            let error = page(Watched::Services, text.as_bytes()).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        let text =
            r#"{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"x"},"items":null}"#;
        let expected = Page { version: "7".into(), next: Some("x".into()), items: Vec::new() };
        assert_eq!(page(Watched::Node, text.as_bytes()), Ok(expected));
    }

    #[test]
    fn events_are_told_apart() {
        let read = |text: &str| event(text.as_bytes());
        let bookmark = r#"{"type":"BOOKMARK","object":{"kind":"Service","metadata":{"resourceVersion":"12"}}}"#;
        assert_eq!(read(bookmark), Ok(Event::Bookmark("12".into())));
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old resource version"}}"#;
        assert_eq!(read(gone), Ok(Event::Gone));
        let failed = r#"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd\nsecond"}}"#;
        assert_eq!(read(failed), Ok(Event::Failed("etcd..".into())));
        for garbage in ["{", "{\"type\":\"ADDED\"}", "{\"type\":\"X\",\"object\":{}}", "null"] {
            assert!(read(garbage).is_err(), "{garbage}");
        }
    }
}
