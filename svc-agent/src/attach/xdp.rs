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

/// What decides about XDP on a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits<'a> {
    /// What made a virtual device: `veth`, `bridge`, ..
    pub kind: Option<&'a str>,
    /// The hardware behind a physical one.
    pub parent: Option<&'a str>,
    /// Of a veth: whether its other end takes what XDP sends. `None` if the kernel does not tell.
    pub taken: Option<bool>,
}

/// Chooses how to attach XDP to a device.
pub fn choose(mode: XdpMode, class: Class, device: Traits) -> Choice {
    // Frames of virtual devices may come from a local sender and have partial checksums, whatever the mode (B05).
    let program = if device.kind.is_some() { program::XDP_VETH } else { program::XDP };
    let native = Attempt { place: Place::Native, program };
    let generic = Attempt { place: Place::Generic, program };
    let none = |reason: String| Choice { attempts: Vec::new(), reason };
    if class != Class::Uplink {
        return none("XDP runs on uplinks only".into());
    }
    match mode {
        XdpMode::Off => none("switched off by xdp-mode".into()),
        XdpMode::Native => match (device.kind, device.taken) {
            (Some("veth"), Some(false)) => none(
                "the other end of the veth does not take what XDP sends: tc alone does the work; \
                 give it GRO (ethtool -K DEVICE gro on) or an XDP program"
                    .into(),
            ),
            (Some("veth"), Some(true)) => Choice {
                attempts: vec![native],
                reason: "asked for by xdp-mode; the other end of the veth takes what XDP sends".into(),
            },
            (Some("veth"), None) => Choice {
                attempts: vec![native],
                reason: "asked for by xdp-mode; this kernel (6.3 does) cannot tell whether the other end of the veth \
                         takes what XDP sends"
                    .into(),
            },
            _ => Choice { attempts: vec![native], reason: "asked for by xdp-mode".into() },
        },
        XdpMode::Generic => Choice { attempts: vec![generic], reason: "asked for by xdp-mode".into() },
        XdpMode::Auto => match (device.kind, device.parent) {
            (Some(kind), _) => none(format!("{kind} is a virtual device: tc alone does the work")),
            (None, None) => none("no hardware behind the device: tc alone does the work".into()),
            (None, Some(_)) => Choice { attempts: vec![native, generic], reason: String::new() },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VETH: Traits = Traits { kind: Some("veth"), parent: None, taken: Some(true) };

    #[test]
    fn the_mode_follows_the_device() {
        let check = |mode, class, device: Traits, places: &[Place], words: &str| {
            let choice = choose(mode, class, device);
            let found: Vec<_> = choice.attempts.iter().map(|attempt| attempt.place).collect();
            assert_eq!(found, places, "{mode} {class} {device:?}");
            assert!(choice.reason.contains(words), "{}", choice.reason);
        };
        use Place::{Generic, Native};
        let nic = Traits { parent: Some("virtio0"), ..Traits::default() };
        check(XdpMode::Auto, Class::Uplink, nic, &[Native, Generic], "");
        check(XdpMode::Auto, Class::Uplink, VETH, &[], "veth");
        check(XdpMode::Auto, Class::Uplink, Traits::default(), &[], "hardware");
        check(XdpMode::Native, Class::Uplink, VETH, &[Native], "takes");
        check(XdpMode::Native, Class::Uplink, Traits { taken: None, ..VETH }, &[Native], "cannot tell");
        check(XdpMode::Native, Class::Uplink, Traits { taken: Some(false), ..VETH }, &[], "tc alone");
        // What goes out by the stack needs nobody who polls.
        check(XdpMode::Generic, Class::Uplink, Traits { taken: Some(false), ..VETH }, &[Generic], "asked");
        check(XdpMode::Off, Class::Uplink, nic, &[], "off");
        check(XdpMode::Native, Class::Workload, VETH, &[], "uplinks only");
    }

    #[test]
    fn a_veth_runs_the_program_that_knows_partial_checksums() {
        let program = |mode, device| choose(mode, Class::Uplink, device).attempts[0].program;
        assert_eq!(program(XdpMode::Native, VETH), program::XDP_VETH);
        assert_eq!(program(XdpMode::Native, Traits::default()), program::XDP);
        assert_eq!(program(XdpMode::Generic, VETH), program::XDP_VETH);
    }
}
