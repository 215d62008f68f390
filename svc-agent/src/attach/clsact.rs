//! tc programs on kernels without tcx (before 6.6): filters of the clsact qdisc, by netlink.

use anyhow::Context as _;
use aya::programs::TcAttachType;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};

use super::programs::Programs;
use crate::datapath::program;

/// Where our filters are, so that the next agent replaces them instead of adding its own.
const PRIORITY: u16 = 0x5356;
const HANDLE: TcHandle = TcHandle::new(0, 1);

const HOOKS: [(TcAttachType, &str); 2] =
    [(TcAttachType::Egress, program::TC_EGRESS), (TcAttachType::Ingress, program::TC_INGRESS)];

/// Brings both programs to a device, in place of those of an earlier agent.
pub(super) fn attach(programs: &mut Programs, iface: &str) -> anyhow::Result<()> {
    // It exists already, or the filters below say what is wrong.
    let _exists = tc::qdisc_add_clsact(iface);
    for (hook, name) in HOOKS {
        let classifier = programs.classifier(name)?;
        let there = SchedClassifierLink::attached(iface, hook, PRIORITY, HANDLE, None)
            .with_context(|| format!("cannot find `{iface}`"))?;
        let link = match classifier.attach_to_link(there) {
            Ok(link) => link,
            Err(_none_to_replace) => {
                let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
                classifier
                    .attach_with_options(iface, hook, TcAttachOptions::Netlink(options))
                    .with_context(|| format!("cannot add the filter `{name}` to `{iface}`"))?
            }
        };
        // A filter stays until somebody removes it, unless aya does when it forgets the link.
        std::mem::forget(classifier.take_link(link)?);
    }
    Ok(())
}

/// Removes our filters from a device; returns the names of those that were there.
pub(super) fn detach(iface: &str) -> Vec<&'static str> {
    let removed = |(hook, name): &(TcAttachType, &'static str)| tc::qdisc_detach_program(iface, *hook, name).is_ok();
    HOOKS.iter().filter(|entry| removed(entry)).map(|(_, name)| *name).collect()
}
