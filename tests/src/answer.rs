//! What `svc-testpod` answers, the same over HTTP, TCP and UDP: `NAME saw CLIENT`, then `: TEXT` if it was told something.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// An answer of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answered.
    pub pod: String,
    /// The client's address and port as the pod saw them.
    pub client: SocketAddr,
    /// What the pod was told.
    pub text: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} saw {}", self.pod, self.client)?;
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

impl FromStr for Answer {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let parse = || {
            let (pod, rest) = line.trim_end().split_once(" saw ")?;
            let (client, text) = rest.split_once(": ").unwrap_or((rest, ""));
            Some(Self { pod: pod.to_owned(), client: client.parse().ok()?, text: text.to_owned() })
        };
        parse().ok_or_else(|| format!("found `{line}`, expected `NAME saw CLIENT`"))
    }
}

/// The byte at an offset of `/download`: no run of equal bytes, and no period that segment sizes divide.
pub fn pattern(offset: u64) -> u8 {
    let mixed = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[0] ^ offset.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_the_way_through_text() {
        for (line, pod, client, text) in [
            ("web-1 saw 10.0.0.1:4242", "web-1", "10.0.0.1:4242", ""),
            ("web-1 saw [fd00::1]:4242: a: b", "web-1", "[fd00::1]:4242", "a: b"),
        ] {
            let answer = Answer { pod: pod.to_owned(), client: client.parse().unwrap(), text: text.to_owned() };
            assert_eq!(line.parse(), Ok(answer.clone()));
            assert_eq!(answer.to_string(), line);
        }
        assert!("hello".parse::<Answer>().unwrap_err().contains("`hello`"));
    }
}
