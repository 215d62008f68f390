//! Where the API servers were, for the next start: after a reboot nothing leads to their ClusterIP before somebody has
//! asked them where they are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::model::Problem;
use crate::whole_file;

/// Name of the file in the state directory.
const NAME: &str = "api-servers.json";
/// So many are remembered.
const MANY: usize = 64;

/// A file with addresses.
#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    addresses: Vec<SocketAddr>,
}

impl Remembered {
    /// Reads the file in a state directory. What cannot be read is nothing that is needed.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(NAME);
        let text = whole_file::read(&path).ok().flatten().unwrap_or_default();
        let mut addresses: Vec<SocketAddr> = serde_json::from_str(&text).unwrap_or_default();
        addresses.truncate(MANY);
        Self { path, addresses }
    }

    /// What is remembered.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Remembers other addresses from now on; none at all is no news. What is wrong with the file, if it cannot be written.
    pub fn keep(&mut self, addresses: &[SocketAddr]) -> Option<Problem> {
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MANY);
        if addresses.is_empty() || addresses == self.addresses {
            return None;
        }
        let text = serde_json::to_string(&addresses).unwrap_or_default();
        match whole_file::replace(&self.path, &text) {
            Ok(()) => {
                self.addresses = addresses;
                None
            }
            Err(error) => Some(Problem::warning(format!(
                "cannot write `{}`: {error}; after a reboot the API servers have to be found by `api-servers`",
                self.path.display()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_outlive_the_agent_and_garbage_is_nothing() {
        let dir = tempfile::Builder::new().prefix("svct-").tempdir().unwrap();
        let state = dir.path().join("state");
        let addresses = ["[2001:db8::1]:6443", "192.0.2.1:6443", "192.0.2.1:6443"].map(|text| text.parse().unwrap());
        let mut remembered = Remembered::open(&state);
        assert!(remembered.addresses().is_empty() && remembered.keep(&addresses).is_none());
        assert_eq!(remembered.keep(&[]), None);
        let again = Remembered::open(&state);
        assert_eq!(again.addresses(), [addresses[1], addresses[0]]);
        for garbage in ["", "{", "[1]", "\"192.0.2.1:6443\""] {
            std::fs::write(state.join(NAME), garbage).unwrap();
            assert!(Remembered::open(&state).addresses().is_empty(), "{garbage}");
        }
        std::fs::write(dir.path().join("file"), "").unwrap();
        let problem = Remembered::open(&dir.path().join("file")).keep(&addresses).unwrap();
        assert!(problem.text.contains("file/api-servers.json"), "{problem}");
    }
}
