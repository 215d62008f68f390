//! Source ports and the sockets of the node (B30).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use svc_common::{net::proto, outcome::Outcome, packet::Hook};
use svc_tests::{
    oracle::{NODE, Oracle, UPLINK, with_oracle},
    packet::{Frame, assert_frames_eq},
};

use super::{WORLDS, at, source_port};

/// A socket of this node at a port, in both families; the host compilation is told of it.
enum Local {
    Tcp(#[expect(dead_code, reason = "open as long as this lives")] [TcpListener; 2]),
    Udp(#[expect(dead_code, reason = "open as long as this lives")] [UdpSocket; 2]),
}

impl Local {
    fn open(oracle: &mut Oracle, protocol: u8, port: u16) -> Self {
        let any: [SocketAddr; 2] =
            [(Ipv4Addr::UNSPECIFIED, port).into(), (NODE.1.parse::<Ipv6Addr>().unwrap(), port).into()];
        for sockets in [&mut oracle.memory.v4.sockets, &mut oracle.memory.v6.sockets] {
            sockets.insert((protocol, port));
        }
        match protocol {
            proto::TCP => Self::Tcp(any.map(|at| TcpListener::bind(at).unwrap())),
            _ => Self::Udp(any.map(|at| UdpSocket::bind(at).unwrap())),
        }
    }

    fn close(self, oracle: &mut Oracle) {
        for sockets in [&mut oracle.memory.v4.sockets, &mut oracle.memory.v6.sockets] {
            sockets.clear();
        }
    }
}

#[test]
fn b30_ports_of_local_sockets_are_never_chosen() {
    with_oracle(|oracle| {
        for (base, protocol, open) in
            [(100, proto::TCP, Frame::syn as fn(&str, &str) -> Frame), (150, proto::UDP, Frame::udp)]
        {
            for (id, (vip, backend, client, _)) in (base..).step_by(100).zip(WORLDS) {
                oracle.serve(id, protocol, &[vip], &[backend]);
                for (hook, other) in [(Hook::Ingress, 7), (Hook::Xdp, 8)] {
                    let client =
                        at(&client.replace(".7", &format!(".{other}")).replace("::7", &format!("::{other}")), 20_000);
                    let local = Local::open(oracle, protocol, 20_000);
                    let run = oracle.run(hook, UPLINK, &open(&client, vip).build());
                    let found = source_port(&run.bytes);
                    assert!(matches!(run.outcome, Outcome::Send(_)), "{run:?}");
                    assert_ne!(found, 20_000, "{client} at {hook:?}");
                    local.close(oracle);
                    oracle.forget_embryos();
                    let run = oracle.run(hook, UPLINK, &open(&client, vip).build());
                    assert_eq!(source_port(&run.bytes), 20_000, "nobody has it any more");
                    oracle.forget_embryos();
                }
            }
        }
    });
}

#[test]
fn b30_whoever_is_no_backend_of_a_connection_reaches_its_port_at_the_node() {
    with_oracle(|oracle| {
        for (id, (vip, backend, client, node)) in (100..).step_by(100).zip(WORLDS) {
            oracle.serve(id, proto::TCP, &[vip], &[backend]);
            oracle.run(Hook::Ingress, UPLINK, &Frame::syn(&at(client, 20_000), vip).build());
            let port = at(node, 20_000);
            // The backend's other ports, another host, and the backend's port on another host.
            let pod = svc_tests::packet::addr(backend).ip().to_string();
            for from in [at(&pod, 45_000), at(client, 45_000), at(client, 8080)] {
                for hook in [Hook::Xdp, Hook::Ingress] {
                    let frame = Frame::syn(&from, &port).build();
                    let run = oracle.run(hook, UPLINK, &frame);
                    assert_eq!(run.outcome, Outcome::Pass, "{from}");
                    assert_frames_eq(&run.bytes, &frame);
                }
            }
            let run = oracle.run(Hook::Ingress, UPLINK, &Frame::tcp(backend, &port).flags("S.").build());
            assert!(matches!(run.outcome, Outcome::Send(_)), "the backend's answer");
        }
    });
}
