//! From a tree of values to a Kubernetes type, telling every misspelt field and every wrong type, not just the first.
//!
//! A deserializer of our own, because it sees what wrappers around `serde_json`'s cannot: the fields that a type has
//! (to offer the nearest one), and found and expected apart from each other. After an error the field is skipped and
//! the object read again, so that the next error is found too.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::{Map, Value};

use crate::model::findings::Findings;
use crate::model::text::{escape, nearest, quote};

/// Wrong types told of one object; the rest of such a file is hardly worth reading.
const MAX_ERRORS: usize = 20;

/// Reads a `T`; wrong types and unknown fields go to `findings`.
///
/// What is returned lacks the fields with wrong types. `None` if nothing could be made of it.
pub fn read<T: DeserializeOwned>(value: &Value, findings: &mut Findings) -> Option<T> {
    read_within(value, None, findings)
}

/// Reads those parts of a `T` that are named: paths of fields, without the indices of lists.
///
/// Other fields are left at their defaults, whatever is in them. Unknown fields may be newer than the types that this was
/// built with, and are not needed here: they only warn, and only where they look like a slip.
pub fn read_part<T: DeserializeOwned>(value: &Value, parts: &[&str], findings: &mut Findings) -> Option<T> {
    read_within(value, Some(parts), findings)
}

fn read_within<T: DeserializeOwned>(value: &Value, parts: Option<&[&str]>, findings: &mut Findings) -> Option<T> {
    let mut skip = BTreeSet::new();
    let mut errors = Vec::new();
    let (read, unknown) = loop {
        let unknown = RefCell::new(Vec::new());
        let walk = Walk { value, place: Place::Root, report: &Report { skip: &skip, unknown: &unknown, parts } };
        match T::deserialize(walk) {
            Ok(read) => break (Some(read), unknown.into_inner()),
            Err(error) => {
                // The root cannot be skipped, and a field that was skipped cannot fail: so this ends.
                let done = error.path.is_empty() || errors.len() >= MAX_ERRORS || !skip.insert(error.path.clone());
                errors.push(error);
                if done {
                    break (None, unknown.into_inner());
                }
            }
        }
    };
    for error in errors {
        if lenient(&error.path) {
            findings.warn(error.path, error.text);
        } else {
            findings.refuse(error.path, error.text);
        }
    }
    for (path, text) in unknown {
        if parts.is_some() || lenient(&path) { findings.warn(path, text) } else { findings.refuse(path, text) }
    }
    read
}

/// Whether a place is written by machines alone, so that a slip there is no operator's.
fn lenient(path: &str) -> bool {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    below("metadata.managedFields") || (below("status") && !below("status.loadBalancer.ingress"))
}

/// Where in the object a value is.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Place::Root, name) => f.write_str(&escape(name)),
            Self::Field(parent, name) if name.contains(['.', '/']) => write!(f, "{parent}[{}]", escape(name)),
            Self::Field(parent, name) => write!(f, "{parent}.{}", escape(name)),
            Self::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Place<'_> {
    /// The names of the fields that lead here, without indices.
    fn fields(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Element(parent, _) => parent.fields(),
            Self::Field(parent, name) => {
                let parent = parent.fields();
                if parent.is_empty() { (*name).to_owned() } else { format!("{parent}.{name}") }
            }
        }
    }
}

struct Report<'a> {
    /// Fields that are known to be bad.
    skip: &'a BTreeSet<String>,
    /// Unknown fields: the object they are in, and a text.
    unknown: &'a RefCell<Vec<(String, String)>>,
    /// What is wanted of the object; everything if absent.
    parts: Option<&'a [&'a str]>,
}

impl Report<'_> {
    fn skips(&self, place: Place<'_>) -> bool {
        !self.skip.is_empty() && self.skip.contains(&place.to_string())
    }

    /// Whether a field is in no part that is wanted.
    fn leaves_out(&self, place: Place<'_>) -> bool {
        let Some(parts) = self.parts else { return false };
        let path = place.fields();
        let within = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !parts.iter().any(|part| within(part, &path) || within(&path, part))
    }

    fn unknown(&self, parent: Place<'_>, field: &str, known: &[&str]) {
        let remedy = match nearest(field, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.parts.is_some() => return,
            None => format!("expected one of {}", known.join(", ")),
        };
        self.unknown.borrow_mut().push((parent.to_string(), format!("unknown field {}; {remedy}", quote(field))));
    }
}

/// What is wrong, and where.
#[derive(Debug)]
struct WalkError {
    path: String,
    text: String,
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

impl std::error::Error for WalkError {}

impl de::Error for WalkError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { path: String::new(), text: text.to_string() }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self { path: String::new(), text: format!("expected {}", plain(&expected.to_string())) }
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(Unexpected::Unit, expected)
    }
}

/// What serde and the Kubernetes types call things, in words for operators.
fn plain(expected: &str) -> &str {
    match expected {
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => "a whole number within its range",
        "IntOrString" | "int or string" => "a number or a string",
        other => other,
    }
}

/// One value of the object that is being read.
#[derive(Clone, Copy)]
struct Walk<'de, 'p> {
    value: &'de Value,
    place: Place<'p>,
    report: &'p Report<'p>,
}

impl<'de> Walk<'de, '_> {
    fn wrong(&self, expected: &str) -> WalkError {
        let mut text = format!("found {}, expected {expected}", found(self.value));
        if self.value.as_str().is_some_and(|text| text.contains(" //")) {
            text.push_str("; a comment begins with #");
        }
        WalkError { path: self.place.to_string(), text }
    }

    /// Names the place of an error that a visitor made of this very value.
    fn placed<T>(&self, result: Result<T, WalkError>) -> Result<T, WalkError> {
        result.map_err(|error| {
            if error.path.is_empty() {
                WalkError { path: self.place.to_string(), text: format!("found {}, {}", found(self.value), error.text) }
            } else {
                error
            }
        })
    }

    fn object(&self) -> Result<&'de Map<String, Value>, WalkError> {
        self.value.as_object().ok_or_else(|| self.wrong("a mapping with fields"))
    }
}

/// What a value is, in words.
pub fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string \"{}\"", escape(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
            if !self.value.is_number() {
                return Err(self.wrong("a number"));
            }
            self.deserialize_any(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Walk<'de, '_> {
    type Error = WalkError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        let result = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_i64(number),
                (None, Some(number), _) => visitor.visit_u64(number),
                (None, None, Some(number)) => visitor.visit_f64(number),
                (None, None, None) => Err(self.wrong("a number that fits")),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(list) => visitor.visit_seq(Elements { list: list.iter().enumerate(), walk: self }),
            Value::Object(map) => visitor.visit_map(Fields { map: map.iter(), known: None, next: None, walk: self }),
        };
        self.placed(result)
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        if self.value.is_boolean() { self.deserialize_any(visitor) } else { Err(self.wrong("true or false")) }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        if self.value.is_string() { self.deserialize_any(visitor) } else { Err(self.wrong("a string")) }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        if self.value.is_array() { self.deserialize_any(visitor) } else { Err(self.wrong("a list")) }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        self.object()?;
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, WalkError> {
        let map = self.object()?.iter();
        self.placed(visitor.visit_map(Fields { map, known: Some(fields), next: None, walk: self }))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, WalkError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

/// The fields of a mapping. With `known`, others are reported and not handed on.
struct Fields<'de, 'p> {
    map: serde_json::map::Iter<'de>,
    known: Option<&'static [&'static str]>,
    next: Option<(&'de str, &'de Value)>,
    walk: Walk<'de, 'p>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = WalkError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, WalkError> {
        for (key, value) in self.map.by_ref() {
            if let Some(known) = self.known
                && !known.contains(&key.as_str())
            {
                self.walk.report.unknown(self.walk.place, key, known);
                continue;
            }
            let place = Place::Field(&self.walk.place, key);
            if self.walk.report.skips(place) || self.known.is_some() && self.walk.report.leaves_out(place) {
                continue;
            }
            self.next = Some((key, value));
            return seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, WalkError> {
        let Some((key, value)) = self.next.take() else { return Err(de::Error::custom("a value without a key")) };
        seed.deserialize(Walk { value, place: Place::Field(&self.walk.place, key), report: self.walk.report })
    }
}

/// The elements of a list.
struct Elements<'de, 'p> {
    list: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    walk: Walk<'de, 'p>,
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = WalkError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, WalkError> {
        for (index, value) in self.list.by_ref() {
            let place = Place::Element(&self.walk.place, index);
            if !self.walk.report.skips(place) {
                return seed.deserialize(Walk { value, place, report: self.walk.report }).map(Some);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;
    use crate::model::Severity;

    fn texts(value: &Value) -> Vec<String> {
        let mut findings = Findings::default();
        read::<Service>(value, &mut findings);
        findings
            .all()
            .iter()
            .map(|finding| format!("{} {}: {}", finding.severity, finding.path, finding.text))
            .collect()
    }

    #[test]
    fn every_wrong_type_and_every_unknown_field_is_told() {
        let value = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "app": "web", "labels": {"a.b/c": 1}},
            "spec": {
                "type:": "LoadBalancer",
                "port": [],
                "ports": [{"port": "80", "targetPort": [1]}, {"port": 8.5, "nodePort": 99_999_999_999_u64}],
                "externalIPs": "192.0.2.1",
                "publishNotReadyAddresses": "yes",
            },
        });
        assert_eq!(
            texts(&value),
            [
                "error metadata.labels[a.b/c]: found the number 1, expected a string",
                "error spec.externalIPs: found the string \"192.0.2.1\", expected a list",
                "error spec.ports[0].port: found the string \"80\", expected a number",
                "error spec.ports[0].targetPort: found a list, expected a number or a string",
                "error spec.ports[1].nodePort: found the number 99999999999, expected a whole number within its range",
                "error spec.ports[1].port: found the number 8.5, expected a whole number within its range",
                "error spec.publishNotReadyAddresses: found the string \"yes\", expected true or false",
                "error metadata: unknown field `app`; expected one of annotations, creationTimestamp, \
                 deletionGracePeriodSeconds, deletionTimestamp, finalizers, generateName, generation, labels, \
                 managedFields, name, namespace, ownerReferences, resourceVersion, selfLink, uid",
                "error spec: unknown field `port`; did you mean `ports`?",
                "error spec: unknown field `type:`; did you mean `type`?",
            ]
        );
    }

    #[test]
    fn what_machines_write_only_warns() {
        let value = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "creationTimestamp": null, "managedFields": [{"fieldsV2": {}, "time": 3}]},
            "spec": {"ports": null, "selector": null},
            "status": {"loadBalancer": {"ingress": null, "new": 1}},
        });
        let mut findings = Findings::default();
        assert!(read::<Service>(&value, &mut findings).is_some());
        assert!(!findings.refused() && findings.all().len() == 3, "{findings:?}");
        assert!(findings.all().iter().all(|finding| finding.severity == Severity::Warning));
    }

    #[test]
    fn a_comment_that_is_none_is_recognised() {
        let value = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": "9000 // web"}]}});
        let expected =
            "error spec.ports[0].port: found the string \"9000 // web\", expected a number; a comment begins with #";
        assert_eq!(texts(&value), [expected]);
    }

    #[test]
    fn an_object_that_is_none_is_refused() {
        for value in [json!(null), json!([]), json!("x"), json!({"spec": 3}), json!({"spec": {"ports": [null]}})] {
            assert_eq!(texts(&value).len(), 1, "{value}");
        }
    }

    #[test]
    fn of_a_part_only_slips_are_told() {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "lables": {}},
            "spec": {
                "nodename": "b", "newerThanWeKnow": 1, "volumes": 3,
                "containers": [{"name": "c", "resources": {"limits": {"cpu": 1}}, "image": 3, "ports": [{"containerPort": "80"}]}],
            },
            "status": {"podIp": "10.0.0.1", "alsoNew": {}, "phase": 3, "containerStatuses": 4},
        });
        let mut findings = Findings::default();
        let parts = ["metadata", "spec.nodeName", "spec.containers.ports", "status.phase"];
        read_part::<k8s_openapi::api::core::v1::Pod>(&value, &parts, &mut findings).unwrap();
        let told: Vec<String> = findings
            .all()
            .iter()
            .map(|finding| format!("{} {}: {}", finding.severity, finding.path, finding.text))
            .collect();
        assert_eq!(
            told,
            [
                "error spec.containers[0].ports[0].containerPort: found the string \"80\", expected a number",
                "warning status.phase: found the number 3, expected a string",
                "warning metadata: unknown field `lables`; did you mean `labels`?",
                "warning spec: unknown field `nodename`; did you mean `nodeName`?",
                "warning status: unknown field `podIp`; did you mean `podIP`?",
            ]
        );
    }
}
