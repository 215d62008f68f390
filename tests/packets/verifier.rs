//! What the kernel's verifier says of the programs.

use aya::{EbpfLoader, maps::MapData, programs::Program};
use aya_obj::Object;
use svc_agent::{attach::debug_log, datapath};
use svc_common::maps::{Writer, spec};
use svc_tests::{oracle::with_oracle, scratch};

/// The verifier gives up after a million instructions; a program that is near that is one change, or one older kernel, away from
/// not loading.
#[test]
fn every_program_needs_at_most_half_of_the_verifiers_limit() {
    const LIMIT: u32 = 1_000_000;
    with_oracle(|oracle| {
        oracle.load_all();
        let mut counts: Vec<(String, u32)> = Vec::new();
        for (name, program) in oracle.kernel().programs() {
            let info = match program {
                Program::Xdp(program) => program.info(),
                Program::SchedClassifier(program) => program.info(),
                _ => continue,
            };
            // Not loaded by these tests, or before Linux 5.16, which does not tell.
            let Ok(info) = info else { continue };
            let Some(count) = info.verified_instruction_count() else { continue };
            counts.push((name.to_owned(), count));
        }
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (name, count) in &counts {
            println!("{name:<24} {count:>8} verified instructions");
        }
        let too_many: Vec<_> = counts.iter().filter(|(_, count)| *count > LIMIT / 2).collect();
        assert!(too_many.is_empty(), "{too_many:?}");
    });
}

/// Lines for the log cost time; they are for objects of `cargo xtask build --debug-log`.
#[test]
fn ordinary_programs_have_no_map_for_a_log() {
    with_oracle(|oracle| {
        let maps: Vec<_> = oracle.kernel().maps().map(|(name, _)| name).collect();
        assert!(maps.contains(&"FLOWS_V4") && !maps.contains(&debug_log::MAP), "{maps:?}");
    });
}

/// What the agent alone writes, `svcctl trace` lets a copy of the programs share. The verifier knows who writes: it refuses
/// programs that would write to a map that is made read-only for them.
#[test]
fn programs_only_read_what_the_agent_writes() {
    const RDONLY_PROG: u32 = 1 << 7;
    with_oracle(|_| {
        let pins = tempfile::Builder::new()
            .prefix(&format!("{}-", scratch::name()))
            .tempdir_in("/sys/fs/bpf")
            .expect("a bpffs");
        let object = datapath::object().expect("embedded");
        let parsed = Object::parse(object).expect("an object");
        let mut loader = EbpfLoader::new();
        for map in spec::ALL {
            loader.map_max_entries(map.name, map.capacity.min(4_096));
            if map.writer == Writer::Agent {
                let mut shape = parsed.maps.get(map.name).expect(map.name).clone();
                shape.set_max_entries(map.capacity.min(4_096));
                let aya_obj::Map::Legacy(legacy) = &mut shape else { panic!("{} is of another kind", map.name) };
                legacy.def.map_flags |= RDONLY_PROG;
                let pin = pins.path().join(map.name);
                MapData::create(shape, map.name, None).expect(map.name).pin(&pin).expect(map.name);
                loader.map_pin_path(map.name, pin);
            }
        }
        let mut ebpf = loader.load(object).expect("the maps");
        for (name, program) in ebpf.programs_mut() {
            let loaded = match program {
                Program::Xdp(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                Program::CgroupSockAddr(program) => program.load(),
                Program::CgroupSock(program) => program.load(),
                _ => panic!("{name} is of another kind"),
            };
            loaded.unwrap_or_else(|error| panic!("{name} writes to a map of the agent: {error}"));
        }
    });
}
