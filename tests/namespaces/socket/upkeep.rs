//! What is kept of sockets, and what outlives the agent.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use svc_agent::sys::{bpf, link};
use svc_tests::cgroup::{Cgroup, Kind, dial};
use svc_tests::client::TcpClient;
use svc_tests::manifest::Service;

use super::{ask, hear, sockets, spellings};

#[test]
fn b70_nothing_is_left_of_sockets_that_are_closed() {
    let Some(sockets) = sockets("b70_nothing_is_left_of_sockets_that_are_closed", "host") else { return };
    let services = [1, 2, 3].map(|number| sockets.serve(Service::new(&format!("web-{number}"), number).echo()));
    let vips: Vec<SocketAddr> = services.iter().flat_map(|service| spellings(service.cluster(7))).collect();
    for _ in 0..5 {
        let mut open = Vec::new();
        for (n, &to) in vips.iter().cycle().take(200).enumerate() {
            let kind = if n % 2 == 0 { Kind::Tcp } else { Kind::Udp };
            let socket = sockets.node.socket(kind, to.is_ipv4()).unwrap();
            dial(&socket, to).unwrap();
            open.push(socket);
        }
        // One that has been everywhere.
        let busy = sockets.node.udp(false).unwrap();
        for &to in vips.iter().filter(|to| to.is_ipv6()) {
            ask(&busy, to, "who").unwrap();
        }
        let [known, elements] = sockets.remembered();
        assert!(known == 201 && elements >= 300, "{known} {elements}");
        drop((open, busy));
        sockets.wait_until_forgotten();
    }
}

#[test]
fn b70_many_sockets_that_come_and_go_leave_nothing() {
    let Some(sockets) = sockets("b70_many_sockets_that_come_and_go_leave_nothing", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    let vips = service.cluster(7);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let process =
                    svc_tests::cgroup::Process::start(&sockets.world.node(0).unwrap().ns, Some(&sockets.cgroup))
                        .unwrap();
                for to in vips.iter().cycle().take(5_000) {
                    process.udp(to.is_ipv4()).unwrap().connect(to).unwrap();
                }
            });
        }
    });
    sockets.wait_until_forgotten();
    assert_eq!(sockets.counter("socket_translated"), 20_000);
}

#[test]
fn b78_the_hooks_outlive_a_killed_agent_and_are_adopted() {
    let Some(mut sockets) = sockets("b78_the_hooks_outlive_a_killed_agent_and_are_adopted", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    let vips = service.cluster(7);
    let kept: Vec<_> = vips
        .into_iter()
        .map(|to| {
            let udp = sockets.node.udp(to.is_ipv4()).unwrap();
            udp.connect(to).unwrap();
            (udp, to)
        })
        .collect();
    let check = |sockets: &super::Sockets| {
        for (udp, to) in &kept {
            udp.send(b"again").unwrap();
            assert_eq!((hear(udp).unwrap().1, udp.peer_addr().unwrap()), (*to, *to));
        }
        for to in vips {
            for _ in 0..5 {
                let stream = sockets.node.connect(to).unwrap();
                assert_eq!(stream.peer_addr().unwrap(), to);
                TcpClient::from(stream).ask("new").unwrap();
            }
        }
    };
    let links = |sockets: &super::Sockets| {
        let dir = sockets.agent.pin_dir().join("v1/links");
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with("svc_")).collect();
        names.sort();
        names
    };
    check(&sockets);
    let before = links(&sockets);
    assert_eq!(before.len(), 9);
    for _ in 0..2 {
        sockets.agent.kill().unwrap();
        check(&sockets);
        sockets.agent.spawn().unwrap();
        sockets.agent.wait_until_ready().unwrap();
        check(&sockets);
        assert_eq!(links(&sockets), before);
        assert_eq!(sockets.agent.status().unwrap().sockets.attached.len(), 9);
        // Each connection is translated once: nothing is attached twice.
        let counted = sockets.counter("socket_translated");
        sockets.node.connect(vips[0]).unwrap();
        assert_eq!(sockets.counter("socket_translated"), counted + 1);
    }
    // A start with the hooks off takes them away, and forgets the sockets that nobody will see closed.
    sockets.agent.restart_with(&["--socket-lb", "off"]).unwrap();
    assert_eq!(sockets.agent.status().unwrap().sockets.scope, "off");
    assert_eq!((links(&sockets).len(), sockets.remembered()), (0, [0, 0]));
    // The node has no route to a VIP.
    assert!(sockets.node.udp(true).unwrap().connect(vips[0]).is_err());
    assert_eq!(sockets.remembered(), [0, 0]);
}

#[test]
fn b78_hooks_that_somebody_detached_come_back() {
    let Some(sockets) = sockets("b78_hooks_that_somebody_detached_come_back", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    let to = service.cluster(7)[0];
    let pins = sockets.agent.pin_dir().join("v1/links");
    // Removed pins: the agent still holds the links, and pins them again.
    std::fs::remove_file(pins.join("svc_connect4")).unwrap();
    sockets.node.connect(to).unwrap();
    sockets.agent.wait("the pin to come back", |_| Ok(pins.join("svc_connect4").exists())).unwrap();
    // A detached program.
    let held = bpf::open_pin(&pins.join("svc_connect4")).unwrap();
    link::detach(held.as_fd()).unwrap();
    sockets.agent.wait("the hook to come back", |_| Ok(sockets.node.connect(to).is_ok())).unwrap();
}

#[test]
fn the_programs_of_the_hooks_need_at_most_half_of_the_verifiers_limit() {
    const LIMIT: u32 = 1_000_000;
    let Some(sockets) = sockets("the_programs_of_the_hooks_need_at_most_half", "host") else { return };
    let pins = sockets.agent.pin_dir().join("v1/links");
    for name in std::fs::read_dir(&pins).unwrap().map(|entry| entry.unwrap().file_name()) {
        let link = bpf::open_pin(&pins.join(&name)).unwrap();
        let program = link::cgroup_info(link.as_fd()).unwrap().program_id;
        let info = aya::programs::loaded_programs().flatten().find(|info| info.id() == program);
        // Kernels before 5.16 do not tell.
        let Some(count) = info.and_then(|info| info.verified_instruction_count()) else { continue };
        println!("{name:<24?} {count:>8} verified instructions");
        assert!(count <= LIMIT / 2, "{name:?}: {count}");
    }
}

#[test]
fn cleanup_detaches_the_hooks() {
    let Some(mut sockets) = sockets("cleanup_detaches_the_hooks", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    let to = service.cluster(7)[0];
    sockets.agent.kill().unwrap();
    sockets.node.connect(to).unwrap();
    sockets.agent.cleanup().unwrap();
    // The kernel takes unpinned programs away a moment later.
    sockets.agent.wait("the hooks to go", |_| Ok(sockets.node.connect(to).is_err())).unwrap();
}

#[test]
fn the_hooks_follow_the_control_group_of_the_configuration() {
    let Some(mut sockets) = sockets("the_hooks_follow_the_control_group", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    let to = service.cluster(7)[0];
    let other = Cgroup::create().unwrap();
    sockets.agent.restart_with(&["--cgroup", other.path().to_str().unwrap()]).unwrap();
    assert_eq!(sockets.agent.status().unwrap().sockets.cgroup, other.path().to_str().unwrap());
    let inside = svc_tests::cgroup::Process::start(&sockets.world.node(0).unwrap().ns, Some(&other)).unwrap();
    TcpClient::from(inside.connect(to).unwrap()).ask("who").unwrap();
    let socket = sockets.node.socket(Kind::Udp, true).unwrap();
    assert!(dial(&socket, to).is_err(), "the node has no route to a VIP");
    // The process of the former group is nobody's.
    sockets.wait_until_forgotten();
}
