//! The running kernel: its version, and what the datapath does in another way because of it.

use std::fmt;

/// Major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The verifier prunes programs that have functions.
    pub const FUNCTIONS: Self = Self(6, 2);
    /// A look-up of a route tells the address that this node would use itself (`BPF_FIB_LOOKUP_SRC`).
    pub const ROUTE_SOURCE: Self = Self(6, 7);
    /// `BPF_PROG_TEST_RUN` of an XDP program takes the device that a frame came in through.
    pub const XDP_QUESTIONS: Self = Self(5, 15);
    /// A look-up of a route tells its MTU.
    pub const ROUTE_MTU: Self = Self(5, 12);

    /// That of the running kernel; zero if it does not say.
    pub fn running() -> Self {
        Self::parse(&release()).unwrap_or(Self(0, 0))
    }

    /// Reads what `uname -r` prints.
    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
        Some(Self(numbers.next()?, numbers.next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// As `uname -r` says; empty if it does not.
pub fn release() -> String {
    nix::sys::utsname::uname().map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned())
}

/// What is done in another way on a kernel of this version, one line each. What depends on a device or on the socket hooks is told
/// there.
pub fn notes(version: Version) -> Vec<String> {
    let lines = [
        (Version::FUNCTIONS, "programs without functions, as older verifiers do not prune others"),
        (Version::ROUTE_SOURCE, "the source of packets to other nodes is the device's first address, not the route's"),
        (Version::XDP_QUESTIONS, "`svcctl trace` asks the programs at tc, also where XDP comes first"),
        (Version::ROUTE_MTU, "the MTU of a route is not seen, only its device's"),
    ];
    lines.iter().filter(|(since, _)| version < *since).map(|(since, line)| format!("before {since}: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        let parse = |release: &str| Version::parse(release);
        assert_eq!(parse("5.10.0-46-cloud-amd64"), Some(Version(5, 10)));
        assert_eq!(parse("7.2.12+deb14-cloud-amd64"), Some(Version(7, 2)));
        assert_eq!(parse("6.18-rc1"), Some(Version(6, 18)));
        assert_eq!(parse("linux"), None);
        assert!(Version(5, 10) < Version::ROUTE_MTU && Version(6, 12) > Version::ROUTE_SOURCE);
    }

    #[test]
    fn an_old_kernel_has_notes_and_a_new_one_none() {
        let check = |version, words: &[&str]| {
            let notes = notes(version);
            assert_eq!(notes.len(), words.len(), "{notes:?}");
            assert!(notes.iter().zip(words).all(|(note, word)| note.contains(word)), "{notes:?}");
        };
        check(Version(5, 10), &["functions", "source", "trace", "MTU"]);
        check(Version(6, 1), &["functions", "source"]);
        check(Version(6, 6), &["source"]);
        check(Version(6, 12), &[]);
    }
}
