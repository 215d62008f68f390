//! A second copy of the kernel programs for a question: it reads the services, devices and settings of the live datapath, and
//! writes to tables of its own. Nothing of it is attached or pinned; it ends with its value.

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, MapData, PerCpuArray, ProgramArray};
use aya::programs::{SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions};
use svc_common::maps::{MapSpec, Writer, spec};
use svc_common::packet::Hook;
use svc_common::reason::Reason;

use super::pins::PinDir;
use super::programs::jiffy_mult;
use super::verify;
use crate::datapath::{self, program};

/// What the copy shares with the datapath: what the programs only read.
fn shared() -> impl Iterator<Item = &'static MapSpec> {
    spec::ALL.iter().filter(|map| map.writer == Writer::Agent)
}

/// What it has of its own is for one connection.
const SMALL_CAPACITY: u32 = 1_024;
/// The least that the kernel makes a ring buffer of, in bytes: a page of any size.
const SMALL_RING: u32 = 65_536;

/// The capacity of one of its own maps.
fn small(map: &MapSpec) -> u32 {
    map.capacity.min(if *map == spec::EVENTS { SMALL_RING } else { SMALL_CAPACITY })
}

/// The copy.
pub struct Trial {
    ebpf: Ebpf,
    veth: bool,
    /// The kernel empties these with their last handle.
    _stages: Vec<ProgramArray<MapData>>,
}

impl Trial {
    /// Loads what runs at these hooks beside the datapath of these pins; at XDP the program for veth if so told.
    ///
    /// # Errors
    /// If a shared map is not there, or the kernel refuses something.
    pub fn load(pins: &PinDir, hooks: &[Hook], veth: bool) -> anyhow::Result<Self> {
        let jiffy_mult = jiffy_mult()?;
        let mut loader = EbpfLoader::new();
        loader.override_global(program::JIFFY_MULT, &jiffy_mult, true);
        for map in shared() {
            let pin = pins.map(map);
            // Loading would make and pin a new one.
            ensure!(pin.exists(), "the map `{}` is not pinned at `{}`", map.name, pin.display());
            loader.map_pin_path(map.name, pin);
        }
        for map in spec::ALL.iter().filter(|map| map.writer != Writer::Agent) {
            loader.map_max_entries(map.name, small(map));
        }
        let mut ebpf = loader.load(datapath::object()?).context("cannot load a copy of the kernel programs")?;
        let mut stages = Vec::new();
        for hook in hooks {
            verify::load_all(&mut ebpf, &[name(*hook, veth)])?;
            let own = match hook {
                Hook::Xdp => spec::STAGES_XDP,
                Hook::Ingress => spec::STAGES_INGRESS,
                Hook::Egress => spec::STAGES_EGRESS,
            };
            for (array, names) in program::STAGES.into_iter().filter(|(array, _)| *array == own) {
                let map = ebpf.take_map(array.name).with_context(|| format!("there is no map `{}`", array.name))?;
                let mut array = ProgramArray::try_from(map)?;
                verify::load_all(&mut ebpf, &names)?;
                for (index, name) in (0..).zip(names) {
                    array.set(index, ebpf.program(name).context("loaded just now")?.fd()?, 0)?;
                }
                stages.push(array);
            }
        }
        Ok(Self { ebpf, veth, _stages: stages })
    }

    /// Runs a frame that comes in through (at egress: leaves by) a device: the kernel's verdict, and the frame afterwards.
    ///
    /// # Errors
    /// If the kernel refuses to run it.
    pub fn run(&self, hook: Hook, ifindex: u32, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>)> {
        let mut out = vec![0; frame.len() + 256];
        // struct xdp_md: data_end and ingress_ifindex are its second and fourth words; struct __sk_buff: ifindex is the
        // eleventh of 48.
        let context = match hook {
            Hook::Xdp => words(&[(1, u32::try_from(frame.len())?), (3, ifindex)], 6),
            Hook::Ingress | Hook::Egress => words(&[(10, ifindex)], 48),
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let name = name(hook, self.veth);
        let program = self.ebpf.program(name).context("loaded with the others")?;
        let result = match hook {
            Hook::Xdp => TryInto::<&Xdp>::try_into(program)?.test_run(options),
            Hook::Ingress | Hook::Egress => TryInto::<&SchedClassifier>::try_into(program)?.test_run(options),
        };
        let result = result.with_context(|| format!("the kernel does not run `{name}` for a question"))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// Puts something into a table of its own.
    ///
    /// # Errors
    /// If the table belongs to the datapath, or does not take it.
    pub fn insert<K: Pod, V: Pod>(&mut self, map: &MapSpec, key: &K, value: &V) -> anyhow::Result<()> {
        ensure!(map.writer != Writer::Agent, "the map `{}` belongs to the datapath", map.name);
        let map = self.ebpf.map_mut(map.name).with_context(|| format!("there is no map `{}`", map.name))?;
        let mut map: HashMap<_, K, V> = HashMap::try_from(map)?;
        map.insert(key, value, 0)?;
        Ok(())
    }

    /// Looks something up, in a table of its own or of the datapath.
    pub fn get<K: Pod, V: Pod>(&self, map: &MapSpec, key: &K) -> Option<V> {
        let map: HashMap<_, K, V> = HashMap::try_from(self.ebpf.map(map.name)?).ok()?;
        map.get(key, 0).ok()
    }

    /// What its programs have counted.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn counted(&self) -> anyhow::Result<Vec<Reason>> {
        let map: Option<&Map> = self.ebpf.map(spec::COUNTERS.name);
        let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map.context("there is no map `COUNTERS`")?)?;
        let mut counted = Vec::new();
        for reason in Reason::ALL {
            if counters.get(&u32::from(*reason as u8), 0)?.iter().any(|count| *count > 0) {
                counted.push(*reason);
            }
        }
        Ok(counted)
    }
}

const fn name(hook: Hook, veth: bool) -> &'static str {
    match hook {
        Hook::Xdp if veth => program::XDP_VETH,
        Hook::Xdp => program::XDP,
        Hook::Ingress => program::TC_INGRESS,
        Hook::Egress => program::TC_EGRESS,
    }
}

/// A context of `len` words that are zero but for some.
fn words(set: &[(usize, u32)], len: usize) -> Vec<u8> {
    let value = |at| set.iter().find(|(index, _)| *index == at).map_or(0, |(_, value)| *value);
    (0..len).flat_map(|at| value(at).to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the datapath's stages, a copy would go on in programs that write to the datapath's tables.
    #[test]
    fn a_copy_shares_what_the_agent_writes_and_nothing_that_packets_change() {
        let names: Vec<_> = shared().map(|map| map.name).collect();
        for name in ["FRONTENDS_V4", "SLOTS", "BACKENDS_V6", "RANGES_V6", "SVC_CIDRS_V4", "DEVICES", "CONFIG"] {
            assert!(names.contains(&name), "{name}");
        }
        for name in ["FLOWS_V4", "EMBRYOS_V6", "AFFINITY_V4", "FRAGMENTS_V4", "HELD_V6", "SOCKET_NAT", "COUNTERS"] {
            assert!(!names.contains(&name), "{name}");
        }
        assert!(!names.iter().any(|name| name.starts_with("STAGES") || name.starts_with("EVENTS")), "{names:?}");
    }
}
