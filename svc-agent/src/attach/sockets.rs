//! The links of the socket hooks: pinned, adopted after a restart, updated in place, like those of devices.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracing::{debug, info, warn};

use super::cgroup::Cgroup;
use super::pins::PinDir;
use super::programs::{Loaded, SocketPrograms};
use crate::sys::bpf;
use crate::sys::link::{self as sys_link, SocketHook};

/// What is attached, and why not more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    /// The control group; empty if nothing is attached.
    pub cgroup: PathBuf,
    /// The hooks that work.
    pub attached: Vec<SocketHook>,
    /// Why it is not all of them, or what they cannot do here; empty if there is nothing to tell.
    pub reason: String,
}

/// The links of this agent's pin directory.
#[derive(Debug)]
pub struct SocketLinks {
    programs: SocketPrograms,
    /// The group that the operator named.
    given: Option<PathBuf>,
    /// Open as long as the agent lives, so that a pin that somebody removes does not detach the program.
    open: BTreeMap<SocketHook, OwnedFd>,
}

impl SocketLinks {
    /// Looks at nothing and attaches nothing yet.
    pub fn new(programs: SocketPrograms, given: Option<&Path>) -> Self {
        Self { programs, given: given.map(Path::to_owned), open: BTreeMap::new() }
    }

    /// Brings every program to its hook.
    pub fn ensure(&mut self, pins: &PinDir) -> SocketState {
        if let Some((_, why)) = self.programs.refused.iter().find(|(hook, _)| !is_optional(**hook)) {
            return SocketState { reason: why.clone(), ..SocketState::default() };
        }
        let cgroup = match Cgroup::open(self.given.as_deref()) {
            Ok(cgroup) => cgroup,
            Err(error) => return SocketState { reason: format!("{error:#}"), ..SocketState::default() },
        };
        let mut reasons: Vec<String> = self.programs.refused.values().cloned().collect();
        if !self.programs.tells_refusal {
            reasons.push("before kernel 5.18 refused connections get EPERM, not ECONNREFUSED".into());
        }
        let mut attached = Vec::new();
        for (hook, program) in in_order(&self.programs.loaded) {
            match ensure(&mut self.open, pins, &cgroup, hook, program) {
                Ok(()) => attached.push(hook),
                Err(error) => {
                    // What makes translations comes last: without what undoes them it stays away.
                    reasons.push(format!("{error:#}"));
                    break;
                }
            }
        }
        SocketState { cgroup: cgroup.path, attached, reason: reasons.join("; ") }
    }

    /// Detaches everything; true if there was anything.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn remove(&mut self, pins: &PinDir) -> anyhow::Result<bool> {
        let mut removed = false;
        for hook in SocketHook::ALL.into_iter().rev() {
            let pin = pins.socket_link(hook);
            let held = self.open.remove(&hook).or_else(|| bpf::open_pin(&pin).ok());
            if let Some(link) = held
                && let Err(error) = sys_link::detach(link.as_fd())
            {
                debug!(?hook, %error, "the link was not detached at once");
            }
            removed |= pins.remove(&pin)?;
        }
        Ok(removed)
    }
}

/// Whether the others may work without it: what `getpeername` says is a courtesy, and came with 5.8 only.
const fn is_optional(hook: SocketHook) -> bool {
    matches!(hook, SocketHook::PeerName4 | SocketHook::PeerName6)
}

fn in_order(loaded: &BTreeMap<SocketHook, Loaded>) -> impl Iterator<Item = (SocketHook, &Loaded)> {
    SocketHook::ALL.into_iter().filter_map(|hook| Some((hook, loaded.get(&hook)?)))
}

/// Adopts, updates or makes one link.
fn ensure(
    open: &mut BTreeMap<SocketHook, OwnedFd>,
    pins: &PinDir,
    cgroup: &Cgroup,
    hook: SocketHook,
    program: &Loaded,
) -> anyhow::Result<()> {
    let pin = pins.socket_link(hook);
    let (held, pinned) = match open.remove(&hook) {
        Some(link) => (Some(link), pin.symlink_metadata().is_ok()),
        None => match bpf::open_pin(&pin) {
            Ok(link) => (Some(link), true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, false),
            Err(error) => return Err(error).with_context(|| format!("cannot open `{}`", pin.display())),
        },
    };
    if let Some(link) = &held
        && let Some(info) = sys_link::cgroup_info(link.as_fd()).ok().filter(|info| info.is_of(hook))
        && info.cgroup == cgroup.id
    {
        if info.program_id != program.id {
            sys_link::update(link.as_fd(), &program.fd)
                .with_context(|| format!("cannot update the link `{}`", pin.display()))?;
            info!(?hook, "updated the program in place");
        }
        if !pinned {
            match bpf::pin(link.as_fd(), &pin) {
                Ok(()) => warn!(?hook, "somebody removed the pin of the link; pinned it again"),
                // Whoever restores the directory tells of what is wrong with it.
                Err(error) => debug!(?hook, %error, "cannot pin the link again"),
            }
        }
        open.extend(held.map(|link| (hook, link)));
        return Ok(());
    }
    let shown = cgroup.path.display();
    let link = sys_link::create_on_cgroup(&program.fd, cgroup, hook)
        .with_context(|| format!("cannot attach {hook:?} to the control group `{shown}`"))?;
    // The link of another group, or of one that is gone, goes when its successor works.
    if let Some(former) = held
        && let Err(error) = sys_link::detach(former.as_fd())
    {
        debug!(?hook, %error, "the former link was not detached at once");
    }
    if pins.remove(&pin)? {
        info!(?hook, "removed the link of another control group, or of one that is gone");
    }
    bpf::pin(link.as_fd(), &pin).with_context(|| format!("cannot pin `{}`", pin.display()))?;
    info!(?hook, cgroup = %shown, "attached");
    open.insert(hook, link);
    Ok(())
}
