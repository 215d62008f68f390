//! From the bytes of a file to its documents, numbered as a reader counts them.
//!
//! YAML and JSON are read into one tree of values; duplicate keys are refused in both, and a budget bounds what a
//! file can make the agent hold: aliases, nesting, nodes. As with `kubectl`, the content tells which of the two a file
//! is, whatever its name.

use std::borrow::Cow;

use serde_json::Value;

use super::json;
use crate::model::text::escape;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its number in the file, from 1.
    pub number: usize,
    /// Its content; never null.
    pub value: Value,
}

/// Nodes of one document: more than 200,000 endpoints.
const MAX_NODES: usize = 4_000_000;
/// Nesting of one document; Kubernetes objects have about ten levels.
const MAX_DEPTH: usize = 64;

/// The documents of a file, and those that cannot be read as `(number, text)`.
type Outcome = (Vec<Document>, Vec<(usize, String)>);

/// Reads every document; those that cannot be read are told as `(number, text)`. `json`: the file calls itself JSON.
pub fn read(bytes: &[u8], json: bool) -> Outcome {
    let text = match decode(bytes) {
        Ok(text) => text,
        Err(error) => return (Vec::new(), vec![(1, error)]),
    };
    if !text.trim_start().starts_with(['{', '[']) {
        return read_yaml(&text);
    }
    let strict = read_json(&text);
    // YAML contains JSON, but neither documents without a marker between them nor JSON's own words for its errors.
    let marked = text.lines().any(is_marker);
    if strict.1.is_empty() || json && !marked {
        return strict;
    }
    let loose = read_yaml(&text);
    if loose.1.is_empty() || marked { loose } else { strict }
}

/// UTF-8 or, with a mark at the beginning, UTF-16, which a Windows shell writes when it redirects.
fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let units: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return decode_utf8(bytes).map(Cow::Borrowed),
    };
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text: Result<String, _> = char::decode_utf16(pairs.iter().skip(1).map(|pair| units(*pair))).collect();
    match text {
        Ok(text) if rest.is_empty() => Ok(Cow::Owned(text)),
        _ => Err("found bytes that are not UTF-16 after its mark, expected UTF-8 text".to_owned()),
    }
}

fn decode_utf8(bytes: &[u8]) -> Result<&str, String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
            Err(format!("line {line}: found bytes that are not UTF-8, expected UTF-8 text"))
        }
    }
}

fn read_json(text: &str) -> Outcome {
    let mut documents = Vec::new();
    for (i, value) in json::stream(text).enumerate() {
        match value {
            Ok(Value::Null) => {}
            Ok(value) => documents.push(Document { number: i + 1, value }),
            Err(error) => return (documents, vec![(i + 1, escape(&error.to_string()))]),
        }
    }
    (documents, Vec::new())
}

fn read_yaml(text: &str) -> Outcome {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for (i, chunk) in split(text).into_iter().enumerate() {
        match serde_saphyr::from_multiple_with_options::<Value>(chunk.text, options()) {
            Ok(values) => documents.extend(
                values.into_iter().filter(|value| !value.is_null()).map(|value| Document { number: i + 1, value }),
            ),
            Err(error) => errors.push((i + 1, describe(&error, chunk.lines_before))),
        }
    }
    (documents, errors)
}

/// One document's text and the number of lines before it in the file.
struct Chunk<'a> {
    text: &'a str,
    lines_before: usize,
}

/// Splits at the lines `---`. YAML allows such a line nowhere inside a document, so this needs no parser, and a
/// document that cannot be parsed does not take the others along.
fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    // Comments and %-directives before the first `---` belong to the document that follows.
    let mut only_preamble = true;
    for (line, content) in text.split_inclusive('\n').enumerate() {
        let marker = is_marker(content);
        if marker && !only_preamble {
            chunks.push(Chunk { text: text.get(start..offset).unwrap_or_default(), lines_before: start_line });
            (start, start_line) = (offset, line);
        }
        only_preamble = only_preamble && !marker && (content.trim().is_empty() || content.starts_with(['#', '%']));
        offset += content.len();
    }
    chunks.push(Chunk { text: text.get(start..).unwrap_or_default(), lines_before: start_line });
    chunks
}

/// Whether a line begins a document.
fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 3 * MAX_NODES,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    }
}

fn describe(error: &serde_saphyr::Error, lines_before: usize) -> String {
    let whole = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    let Some(place) = error.location() else { return escape(&whole) };
    // The message ends with the place in the chunk; the reader wants the place in the file.
    let suffix = format!(" at line {}, column {}", place.line(), place.column());
    let message = whole.strip_suffix(&suffix).unwrap_or(&whole);
    let line = usize::try_from(place.line()).unwrap_or(usize::MAX).saturating_add(lines_before);
    format!("line {line} column {}: {}", place.column(), escape(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> (Vec<usize>, Vec<usize>) {
        let (documents, errors) = read(text.as_bytes(), false);
        (documents.iter().map(|document| document.number).collect(), errors.iter().map(|error| error.0).collect())
    }

    #[test]
    fn documents_are_counted_as_a_reader_counts_them() {
        for (text, documents, errors) in [
            ("", vec![], vec![]),
            ("# nothing\n", vec![], vec![]),
            ("a: 1\n", vec![1], vec![]),
            ("---\na: 1\n", vec![1], vec![]),
            ("# comment\n---\na: 1\n---\nb: 2\n", vec![1, 2], vec![]),
            ("%YAML 1.2\n---\na: 1\n", vec![1], vec![]),
            ("a: 1\n---\n# empty\n---\nb: 2\n---\n", vec![1, 3], vec![]),
            ("a: 1\n--- # with a comment\nb: 2\n", vec![1, 2], vec![]),
            ("--- {a: 1}\n--- {b: 2}\n", vec![1, 2], vec![]),
            ("a: 1\r\n---\r\nb: 2\r\n", vec![1, 2], vec![]),
            ("a: |\n  text\n  ---\n  more\n---\nb: 1\n", vec![1, 2], vec![]),
            ("a: [1\n---\nb: 2\n", vec![2], vec![1]),
            ("\u{feff}a: 1\n", vec![1], vec![]),
        ] {
            assert_eq!(numbers(text), (documents, errors), "{text:?}");
        }
    }

    #[test]
    fn an_error_names_the_line_of_the_file() {
        for (text, expected) in [
            ("a: 1\n---\nb: 2\nb: 3\n", "line 4 column 1: duplicate mapping key: b"),
            ("a: 1\n---\nb:\n\tc: 2\n", "line 4 column 2: tabs"),
            ("a: *gone\n", "line 1 column 4: "),
        ] {
            let (_, errors) = read(text.as_bytes(), false);
            assert!(errors[0].1.starts_with(expected), "{errors:?}");
        }
        let (_, errors) = read(b"a: 1\nb: \xff\n", false);
        assert!(errors[0].1.starts_with("line 2: found bytes that are not UTF-8"), "{errors:?}");
    }

    #[test]
    fn the_content_tells_json_from_yaml_as_with_kubectl() {
        for (text, json, documents, errors) in [
            ("{\"a\": 1}\n{\"b\": 2}\n", false, vec![1, 2], vec![]),
            ("\t{\"a\": 1}\n", false, vec![1], vec![]),
            ("{\"a\": 1}\n---\n{\"b\": 2}\n", false, vec![1, 2], vec![]),
            ("{\"a\": 1}\n---\n{\"b\": 2}\n", true, vec![1, 2], vec![]),
            ("{a: 1}\n---\nb: 2\n", false, vec![1, 2], vec![]),
            ("{a: 1, }\n", false, vec![1], vec![]),
            ("a: 1\n---\nb: 2\n", true, vec![1, 2], vec![]),
            ("{\"a\": 1, }\n", true, vec![], vec![1]),
            ("{\"a\": 1}\n{\"b\": }\n{\"c\": [1\n", false, vec![1], vec![2]),
        ] {
            let (read_documents, read_errors) = read(text.as_bytes(), json);
            let read_documents: Vec<usize> = read_documents.iter().map(|document| document.number).collect();
            let read_errors: Vec<usize> = read_errors.iter().map(|error| error.0).collect();
            assert_eq!((read_documents, read_errors), (documents, errors), "{text:?} {json}");
        }
    }

    #[test]
    fn what_a_windows_shell_writes_is_text() {
        let text = "a: 1\r\n---\r\nb: é😀\r\n";
        let little: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
        for bytes in [&little, &big] {
            assert_eq!(read(bytes, false), read(text.as_bytes(), false));
        }
        for bad in [&little[..little.len() - 1], b"\xff\xfe\x00\xd8"] {
            assert!(read(bad, false).1[0].1.starts_with("found bytes that are not UTF-16"));
        }
    }

    #[test]
    fn bombs_are_refused_by_the_budget() {
        let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..10 {
            aliases += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
        }
        let deep_flow = "[".repeat(5_000) + &"]".repeat(5_000);
        let deep_block: String = (0..500).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        for text in [&aliases, &deep_flow, &deep_block] {
            assert_eq!(read(text.as_bytes(), false).1.len(), 1);
        }
        assert_eq!(read(deep_flow.as_bytes(), true).1.len(), 1);
    }

    #[test]
    fn booleans_are_strict_and_strings_stay_strings() {
        let (documents, _) = read(b"{a: yes, b: true, c: '80', d: 80, e: off, f: ~}", false);
        assert_eq!(
            documents[0].value,
            serde_json::json!({"a": "yes", "b": true, "c": "80", "d": 80, "e": "off", "f": null})
        );
    }

    #[test]
    fn json_files_may_hold_several_documents() {
        let (documents, errors) = read(b"{\"a\": 1}\n{\"b\": 2}\n", true);
        assert_eq!((documents.len(), errors.len()), (2, 0));
        let (documents, errors) = read(b"{\"a\": 1}\n{\"b\": 2, \"b\": 3}\n", true);
        assert_eq!(documents.len(), 1);
        assert!(errors[0].0 == 2 && errors[0].1.contains("duplicate key `b`"), "{errors:?}");
    }
}
