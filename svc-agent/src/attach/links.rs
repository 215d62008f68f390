//! Links of programs to devices: pinned, adopted after a restart, and updated in place.
//!
//! A program is never detached to make room for its successor, and never attached in a way that dies with the process,
//! except where the kernel has no tcx (before 6.6): there a filter of the clsact qdisc does the work, and is said to.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use tracing::{debug, info, warn};

use super::clsact;
use super::netlink::{Link, XdpFound};
use super::pins::PinDir;
use super::programs::Programs;
use super::xdp::{Attempt, Choice, Place};
use crate::datapath::program;
use crate::sys::bpf;
use crate::sys::link::{self as sys_link, Hook};

/// How XDP is attached to a device, and why so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpState {
    /// Where it runs; `None` means tc alone.
    pub place: Option<Place>,
    /// Why; empty if there is nothing to tell.
    pub reason: String,
}

/// What holds the tc programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcKind {
    /// Pinned links.
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
    /// Nothing.
    #[default]
    Off,
}

/// How the tc programs are attached to a device, and why so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcState {
    /// What holds them.
    pub kind: TcKind,
    /// Why; empty if there is nothing to tell.
    pub reason: String,
}

/// The links of this agent's pin directory.
#[derive(Debug)]
pub struct Links {
    programs: Programs,
    /// Open as long as the agent lives, so that a pin that somebody removes does not detach the program.
    open: HashMap<(u32, Hook), OwnedFd>,
    tcx: bool,
}

impl Links {
    /// Looks at nothing and attaches nothing yet.
    pub fn new(programs: Programs) -> Self {
        Self { programs, open: HashMap::new(), tcx: kernel_has_tcx() }
    }

    /// Brings both tc programs to a device.
    pub fn ensure_tc(&mut self, pins: &PinDir, link: &Link) -> TcState {
        if !self.tcx {
            return match clsact::attach(&mut self.programs, &link.name) {
                Ok(()) => TcState {
                    kind: TcKind::Clsact,
                    reason: "this kernel has no tcx (6.6 has): filters of clsact, updated by replacement".into(),
                },
                Err(error) => TcState { kind: TcKind::Off, reason: format!("{error:#}") },
            };
        }
        // Replies must find their way back before the first request is translated: egress first.
        for (hook, name) in [(Hook::TcEgress, program::TC_EGRESS), (Hook::TcIngress, program::TC_INGRESS)] {
            let runs_here = |program_id| {
                sys_link::tcx_program_ids(link.index, hook).is_ok_and(|programs| programs.contains(&program_id))
            };
            if let Err(error) = self.ensure(pins, link, hook, name, 0, runs_here) {
                return TcState { kind: TcKind::Off, reason: format!("{error:#}") };
            }
        }
        TcState { kind: TcKind::Tcx, reason: String::new() }
    }

    /// Brings XDP to a device in the first of the chosen ways that works.
    pub fn ensure_xdp(&mut self, pins: &PinDir, link: &Link, choice: &Choice) -> XdpState {
        let found = link.xdp;
        // A link cannot change its mode. It goes only if its mode is not wanted any more; tc works meanwhile.
        let unwanted = found.is_some_and(|found| !choice.attempts.iter().any(|attempt| found.is_in(attempt.place)));
        if (choice.attempts.is_empty() || unwanted)
            && let Err(error) = self.remove(pins, link.index, Hook::Xdp)
        {
            return XdpState { place: None, reason: format!("{error:#}") };
        }
        // What works already comes first: trying the others would mean to detach it.
        let (kept, others): (Vec<&Attempt>, Vec<&Attempt>) =
            choice.attempts.iter().partition(|attempt| found.is_some_and(|found| found.is_in(attempt.place)));
        let mut reasons = Vec::new();
        for attempt in kept.into_iter().chain(others) {
            match self.ensure_xdp_at(pins, link, attempt) {
                Ok(()) => {
                    reasons.extend(Some(choice.reason.clone()).filter(|reason| !reason.is_empty()));
                    return XdpState { place: Some(attempt.place), reason: reasons.join("; ") };
                }
                Err(Refused::Occupied) => {
                    let other = found.map(|found| format!(" (id {})", found.program_id)).unwrap_or_default();
                    let reason = format!("another XDP program{other} is attached and stays: tc alone does the work");
                    return XdpState { place: None, reason };
                }
                Err(Refused::Other(error)) => reasons.push(format!("{} XDP: {error:#}", attempt.place)),
            }
        }
        if reasons.is_empty() {
            reasons.push(choice.reason.clone());
        } else {
            reasons.push("tc alone does the work".into());
        }
        XdpState { place: None, reason: reasons.join("; ") }
    }

    fn ensure_xdp_at(&mut self, pins: &PinDir, link: &Link, attempt: &Attempt) -> Result<(), Refused> {
        let found = link.xdp;
        let runs_here = |program_id| found.is_some_and(|found: XdpFound| found.program_id == program_id);
        self.ensure(pins, link, Hook::Xdp, attempt.program, attempt.place.flags(), runs_here)
    }

    /// Adopts, updates or makes one link.
    ///
    /// `runs_here` tells whether a program runs on this hook of this very device: links say their ifindex, which a device
    /// of another network namespace may have as well.
    fn ensure(
        &mut self,
        pins: &PinDir,
        link: &Link,
        hook: Hook,
        program: &str,
        flags: u32,
        runs_here: impl Fn(u32) -> bool,
    ) -> Result<(), Refused> {
        let pin = pins.link(link.index, hook);
        let program = self.programs.get(program)?;
        let (held, pinned) = match self.open.remove(&(link.index, hook)) {
            Some(fd) => (Some(fd), pin.symlink_metadata().is_ok()),
            None => match bpf::open_pin(&pin) {
                Ok(fd) => (Some(fd), true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => (None, false),
                Err(error) => {
                    return Err(anyhow::Error::from(error).context(format!("cannot open `{}`", pin.display())).into());
                }
            },
        };
        if let Some(fd) = held {
            let info = sys_link::info(fd.as_fd()).ok().filter(|info| info.is_at(hook, link.index));
            if let Some(info) = info {
                if !runs_here(info.program_id) {
                    return Err(Refused::Other(anyhow::anyhow!(
                        "`{}` is the link of a device of another network namespace; give each namespace its own --pin-dir",
                        pin.display()
                    )));
                }
                // Kept from here on: a program that works is not detached because something below fails.
                let fd = self.open.entry((link.index, hook)).insert_entry(fd).into_mut();
                if info.program_id != program.id {
                    sys_link::update(fd.as_fd(), &program.fd)
                        .with_context(|| format!("cannot update the link `{}`", pin.display()))?;
                    info!(iface = link.name, hook = ?hook, link = info.id, "updated the program in place");
                }
                if !pinned {
                    match bpf::pin(fd.as_fd(), &pin) {
                        Ok(()) => {
                            warn!(iface = link.name, hook = ?hook, "somebody removed the pin of the link; pinned it again");
                        }
                        // Whoever restores the directory tells of what is wrong with it.
                        Err(error) => debug!(iface = link.name, hook = ?hook, %error, "cannot pin the link again"),
                    }
                }
                return Ok(());
            }
            pins.remove(&pin).map_err(anyhow::Error::from)?;
            info!(iface = link.name, hook = ?hook, "removed the dead link of a device that is gone, or that somebody detached");
        }
        let fd = sys_link::create(&program.fd, link.index, hook, flags)
            .map_err(|error| Refused::of_create(error, &link.name, hook))?;
        // An attachment that is not pinned would die with the process: no pin, no attachment.
        bpf::pin(fd.as_fd(), &pin).with_context(|| format!("cannot pin `{}`", pin.display()))?;
        info!(iface = link.name, hook = ?hook, "attached");
        self.open.insert((link.index, hook), fd);
        Ok(())
    }

    /// Detaches one program of ours from a device, if it is attached.
    ///
    /// # Errors
    /// If its pin cannot be removed.
    pub fn remove(&mut self, pins: &PinDir, ifindex: u32, hook: Hook) -> anyhow::Result<()> {
        let pin = pins.link(ifindex, hook);
        let link = self.open.remove(&(ifindex, hook)).or_else(|| bpf::open_pin(&pin).ok());
        if let Some(Err(error)) = link.map(|link| sys_link::detach(link.as_fd())) {
            // A link whose device is gone has nothing to detach; any other goes with its last reference.
            debug!(ifindex, hook = ?hook, %error, "the link was not detached at once");
        }
        if pins.remove(&pin)? {
            info!(ifindex, hook = ?hook, "removed the link");
        }
        Ok(())
    }

    /// Removes every link whose device `keep` does not name.
    ///
    /// # Errors
    /// If the pins cannot be listed or removed.
    pub fn retain(&mut self, pins: &PinDir, keep: impl Fn(u32) -> bool) -> anyhow::Result<()> {
        for (ifindex, hook) in pins.pinned_links()? {
            if !keep(ifindex) {
                self.remove(pins, ifindex, hook)?;
            }
        }
        self.open.retain(|(ifindex, _), _| keep(*ifindex));
        Ok(())
    }
}

/// Why a program could not be attached.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// There is another program, and only one can be.
    #[error("another program is attached")]
    Occupied,
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Refused {
    fn of_create(error: io::Error, iface: &str, hook: Hook) -> Self {
        match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) if hook == Hook::Xdp => Self::Occupied,
            Some(libc::EOPNOTSUPP) => Self::Other(anyhow::anyhow!("the driver of `{iface}` has none")),
            _ => Self::Other(anyhow::Error::from(error).context(format!("cannot attach to `{iface}`"))),
        }
    }
}

/// Whether there are tcx links: older kernels do not know the hook's number.
pub(super) fn kernel_has_tcx() -> bool {
    const LOOPBACK: u32 = 1;
    match sys_link::tcx_program_ids(LOOPBACK, Hook::TcIngress) {
        Err(error) => error.raw_os_error() != Some(libc::EINVAL),
        Ok(_) => true,
    }
}
