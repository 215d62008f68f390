//! A filter as the query of a request.

use serde::Serialize;
use serde_json::Value;

use super::ClientError;

/// `path`, followed by the fields of `filter` if there are any.
pub fn target(path: &str, filter: &impl Serialize) -> Result<String, ClientError> {
    let mut target = path.to_owned();
    let Value::Object(fields) = serde_json::to_value(filter).map_err(ClientError::broken)? else { return Ok(target) };
    let mut separator = '?';
    // What is false is as good as absent.
    for (name, value) in fields.into_iter().filter(|(_, value)| *value != Value::Bool(false)) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        target.push(separator);
        encode(&name, &mut target);
        target.push('=');
        encode(&value, &mut target);
        separator = '&';
    }
    Ok(target)
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{FlowFilter, ObjectFilter};

    #[test]
    fn only_what_is_asked_for_is_in_the_query_and_nothing_can_break_out_of_it() {
        assert_eq!(target("/v1/services", &ObjectFilter::default()).unwrap(), "/v1/services");
        let filter = ObjectFilter { service: Some("a&limit=0 é".into()), limit: Some(5), ..Default::default() };
        assert_eq!(target("/v1/x", &filter).unwrap(), "/v1/x?limit=5&service=a%26limit%3D0%20%C3%A9");
        let filter = FlowFilter { client: Some("[fd00::1]:80".parse().unwrap()), ..Default::default() };
        assert_eq!(target("/v1/flows", &filter).unwrap(), "/v1/flows?client=%5Bfd00%3A%3A1%5D%3A80");
    }
}
