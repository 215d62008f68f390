//! Datagrams: where they go, and who is told to have answered.

use std::collections::BTreeSet;

use svc_tests::manifest::Service;
use svc_tests::netns::path_of;
use svc_tests::server::ECHO;

use super::{ENOUGH, ask, hear, plain, sockets, spellings};

#[test]
fn b68_an_unconnected_socket_hears_the_vip_and_stays_with_its_backend() {
    let Some(sockets) = sockets("b68_an_unconnected_socket_hears_the_vip", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    for to in spellings(service.cluster(7)) {
        let mut pods = BTreeSet::new();
        for _ in 0..ENOUGH {
            let socket = sockets.node.udp(to.is_ipv4()).unwrap();
            let mut own = BTreeSet::new();
            for n in 0..5 {
                let (answer, from) = ask(&socket, to, &n.to_string()).unwrap();
                // Address and port: pods answer from another one than was asked.
                assert_eq!((from, answer.text), (to, n.to_string()));
                own.insert(answer.pod);
            }
            assert_eq!(own.len(), 1, "one socket, one backend: {own:?}");
            pods.extend(own);
        }
        assert_eq!(pods.len(), 2, "sockets spread over the backends of {to}");
    }
}

#[test]
fn b68_two_vips_of_one_backend_are_told_apart() {
    let Some(sockets) = sockets("b68_two_vips_of_one_backend_are_told_apart", "host") else { return };
    // Both pods, and both Services with both: there is always one that is free for the second VIP.
    let services = [1, 2].map(|number| sockets.serve(Service::new(&format!("web-{number}"), number).echo()));
    // One backend for both: what was asked last is answered.
    let shared =
        [3, 4].map(|number| Service::new(&format!("web-{number}"), number).echo().endpoints(&sockets.world.pods[..1]));
    sockets.agent.apply(&[&shared[0], &shared[1]]).unwrap();
    for family in 0..2 {
        let v4 = family == 0;
        for _ in 0..ENOUGH {
            let socket = sockets.node.udp(v4).unwrap();
            let vips = [0, 1].map(|index: usize| services[index].cluster(7)[family]);
            // Both questions are under way at once.
            for vip in vips {
                socket.send_to(vip.to_string().as_bytes(), vip).unwrap();
            }
            for _ in vips {
                let (answer, from) = hear(&socket).unwrap();
                assert_eq!(answer.text, from.to_string());
            }
        }
        let socket = sockets.node.udp(v4).unwrap();
        for _ in 0..3 {
            for service in &shared {
                let vip = service.cluster(7)[family];
                assert_eq!(ask(&socket, vip, "who").unwrap().1, vip);
            }
        }
    }
}

#[test]
fn b68_answers_of_others_keep_their_names() {
    let Some(sockets) = sockets("b68_answers_of_others_keep_their_names", "host") else { return };
    let service = sockets.serve(Service::new("web", 1).echo());
    let service = service.endpoints(&sockets.world.pods[..1]);
    sockets.agent.apply(&[&service]).unwrap();
    for (index, vip) in service.cluster(7).into_iter().enumerate() {
        let socket = sockets.node.udp(vip.is_ipv4()).unwrap();
        let other = sockets.world.pods[1].host.at(ECHO)[index];
        assert_eq!(ask(&socket, other, "direct").unwrap().1, other);
        assert_eq!(ask(&socket, vip, "vip").unwrap().1, vip);
        assert_eq!(ask(&socket, other, "direct").unwrap().1, other);
        // Another socket that asks the backend itself hears the backend.
        let backend = sockets.world.pods[0].host.at(ECHO)[index];
        let direct = sockets.node.udp(vip.is_ipv4()).unwrap();
        assert_eq!(ask(&direct, backend, "direct").unwrap().1, backend);
    }
}

/// As resolvers do: they throw away what does not come from where they asked.
#[test]
fn b68_a_resolver_that_checks_its_peer_is_content() {
    let Some(sockets) = sockets("b68_a_resolver_that_checks_its_peer_is_content", "host") else { return };
    let service = sockets.serve(Service::new("dns", 1).echo());
    for (index, to) in service.cluster(7).into_iter().enumerate() {
        let script = format!(
            "import socket\n\
             s = socket.socket(socket.AF_INET{six}, socket.SOCK_DGRAM); s.settimeout(3)\n\
             s.sendto(b'one', ('{ip}', {port})); data, peer = s.recvfrom(512)\n\
             assert peer[:2] == ('{ip}', {port}), peer\n\
             s.connect(('{ip}', {port})); assert s.getpeername()[:2] == ('{ip}', {port}), s.getpeername()\n\
             s.send(b'two'); data, _, _, peer = s.recvmsg(512)\n\
             assert data.rstrip().endswith(b'two') and peer[:2] == ('{ip}', {port}), (data, peer)\n",
            six = if index == 0 { "" } else { "6" },
            ip = to.ip(),
            port = to.port(),
        );
        let namespace = format!("--net={}", path_of(sockets.world.node(0).unwrap().ns.name()).display());
        let output = sockets.cgroup.command("nsenter", &[&namespace, "python3", "-c", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // A socket that is connected to one VIP and sends to it by name, too.
    for to in service.cluster(7) {
        let socket = sockets.node.udp(to.is_ipv4()).unwrap();
        socket.connect(to).unwrap();
        for _ in 0..4 {
            let (answer, from) = ask(&socket, to, "who").unwrap();
            assert_eq!((from, answer.client), (to, plain(socket.local_addr().unwrap())));
        }
    }
}
