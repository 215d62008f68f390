//! Whether and how XDP runs on a device. Pure: attempts in order, and why there are no others.

use std::fmt;

use super::classes::Class;
use crate::config::XdpMode;
use crate::datapath::program;
use crate::sys::link::xdp_flags;

/// Where XDP runs on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
}

impl Place {
    /// Flags of the link.
    pub const fn flags(self) -> u32 {
        match self {
            Self::Native => xdp_flags::NATIVE,
            Self::Generic => xdp_flags::GENERIC,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// One way to attach XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where.
    pub place: Place,
    /// Which program.
    pub program: &'static str,
}

/// What to try, and what to tell about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// First that works, counts.
    pub attempts: Vec<Attempt>,
    /// Why not more was tried; empty if there is nothing to tell.
    pub reason: String,
}

/// Chooses how to attach XDP to a device.
///
/// `kind` is what made a virtual device (`veth`, `bridge`, ..), `parent` the hardware behind a physical one.
pub fn choose(mode: XdpMode, class: Class, kind: Option<&str>, parent: Option<&str>) -> Choice {
    // Frames of virtual devices may come from a local sender and have partial checksums, whatever the mode (B05).
    let program = if kind.is_some() { program::XDP_VETH } else { program::XDP };
    let native = Attempt { place: Place::Native, program };
    let generic = Attempt { place: Place::Generic, program };
    let none = |reason: String| Choice { attempts: Vec::new(), reason };
    if class != Class::Uplink {
        return none("XDP runs on uplinks only".into());
    }
    match mode {
        XdpMode::Off => none("switched off by xdp-mode".into()),
        XdpMode::Native => Choice { attempts: vec![native], reason: "asked for by xdp-mode".into() },
        XdpMode::Generic => Choice { attempts: vec![generic], reason: "asked for by xdp-mode".into() },
        XdpMode::Auto => match (kind, parent) {
            (Some(kind), _) => none(format!("{kind} is a virtual device: tc alone does the work")),
            (None, None) => none("no hardware behind the device: tc alone does the work".into()),
            (None, Some(_)) => Choice { attempts: vec![native, generic], reason: String::new() },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_follows_the_device() {
        let check = |mode, class, kind, parent, places: &[Place], words: &str| {
            let choice = choose(mode, class, kind, parent);
            let found: Vec<_> = choice.attempts.iter().map(|attempt| attempt.place).collect();
            assert_eq!(found, places, "{mode} {class} {kind:?}");
            assert!(choice.reason.contains(words), "{}", choice.reason);
        };
        use Place::{Generic, Native};
        check(XdpMode::Auto, Class::Uplink, None, Some("virtio0"), &[Native, Generic], "");
        check(XdpMode::Auto, Class::Uplink, Some("veth"), None, &[], "veth");
        check(XdpMode::Auto, Class::Uplink, None, None, &[], "hardware");
        check(XdpMode::Native, Class::Uplink, Some("veth"), None, &[Native], "asked");
        check(XdpMode::Generic, Class::Uplink, Some("veth"), None, &[Generic], "asked");
        check(XdpMode::Off, Class::Uplink, None, Some("0000:00:01.0"), &[], "off");
        check(XdpMode::Native, Class::Workload, Some("veth"), None, &[], "uplinks only");
    }

    #[test]
    fn a_veth_runs_the_program_that_knows_partial_checksums() {
        let program = |mode, kind| choose(mode, Class::Uplink, kind, None).attempts[0].program;
        assert_eq!(program(XdpMode::Native, Some("veth")), program::XDP_VETH);
        assert_eq!(program(XdpMode::Native, None), program::XDP);
        assert_eq!(program(XdpMode::Generic, Some("veth")), program::XDP_VETH);
    }
}
