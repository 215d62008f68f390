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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::attach::maps::Sizes;
    use crate::attach::pins::PinDir;
    use crate::datapath;

    fn run(command: &str) -> String {
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Tells the reader and, through a file, `cargo xtask test`.
    fn skip(reason: &str) {
        let line = format!("b78_a_successor_replaces_the_filters_instead_of_adding_its_own: {reason}");
        eprintln!("SKIPPED {line}");
        if let Some(path) = std::env::var_os("SVC_TEST_SKIPS") {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
        }
    }

    fn filters() -> usize {
        ["ingress", "egress"]
            .iter()
            .map(|hook| run(&format!("tc filter show dev eth0 {hook}")).matches("direct-action").count())
            .sum()
    }

    /// Newer kernels have the qdisc as well, so the way for the older ones can be tried on any.
    #[test]
    fn b78_a_successor_replaces_the_filters_instead_of_adding_its_own() {
        let path = PathBuf::from(format!("/sys/fs/bpf/svct-clsact-{}", std::process::id()));
        // The object first: opening makes the directory.
        let ready = datapath::object().ok().and_then(|object| Some((PinDir::open(&path).ok()?, object)));
        let Some((pins, object)) = ready else {
            skip("needs root, a BPF file system, and the kernel programs (`cargo xtask test`)");
            return;
        };
        let work = move || {
            // The thread takes its namespace with it.
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip link add eth0 type veth peer name peer0");
            for generation in 1..=2 {
                let (mut programs, _) = Programs::load(&pins, object, Sizes { max_flows: 1_024 }, true).unwrap();
                attach(&mut programs, "eth0").unwrap();
                drop(programs);
                assert_eq!(filters(), 2, "generation {generation}");
            }
            assert_eq!(detach("eth0").len(), 2);
            assert_eq!(filters(), 0);
        };
        let done = std::thread::spawn(work).join();
        PinDir::open_existing(&path).unwrap().unwrap().remove_all().unwrap();
        done.unwrap();
    }
}
