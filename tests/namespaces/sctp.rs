//! SCTP by real sockets, where the kernel has them: associations through a ClusterIP and through a nodePort.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen, socket,
};
use svc_tests::client::{PATIENCE, Transport};
use svc_tests::manifest::{Port, Service};
use svc_tests::need;
use svc_tests::netns::Netns;

use crate::cluster::{Cluster, Setting};

const PORT: u16 = 7_777;

/// A socket of one association, in the namespace of this thread.
fn sctp(of: IpAddr) -> nix::Result<OwnedFd> {
    let family = if of.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)
}

/// Answers every association with its name and with whom it sees.
fn serve(ns: &Netns, name: &str, at: SocketAddr) {
    let listener = ns
        .run(|| {
            let socket = sctp(at.ip())?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
            listen(&socket, Backlog::new(64)?)?;
            nix::Result::Ok(socket)
        })
        .unwrap()
        .unwrap();
    let name = name.to_owned();
    // Ends with the test's process. The standard library's streams read and write whatever socket they are made of.
    let listener = TcpListener::from(listener);
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let mut question = [0; 64];
            let Ok(len) = stream.read(&mut question) else { continue };
            let question = String::from_utf8_lossy(&question[..len]).into_owned();
            let _ = stream.write_all(format!("{name} {peer} {question}").as_bytes());
        }
    });
}

/// Who answered, and whom it saw.
fn ask(ns: &Netns, to: SocketAddr, question: &str) -> (String, SocketAddr) {
    let answer = ns.run(|| -> std::io::Result<String> {
        let socket = sctp(to.ip())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
        stream.write_all(question.as_bytes())?;
        let mut answer = [0; 256];
        let len = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
    });
    let answer = answer.unwrap().unwrap_or_else(|error| panic!("SCTP to {to}: {error}"));
    let words: Vec<_> = answer.splitn(3, ' ').collect();
    assert_eq!(words[2], question);
    (words[0].to_owned(), words[1].parse().unwrap())
}

#[test]
fn b06_associations_of_real_sockets_reach_every_backend() {
    const NAME: &str = "sctp::b06_associations_of_real_sockets_reach_every_backend";
    if !need::root(NAME) {
        return;
    }
    if let Err(error) = sctp(IpAddr::from([127, 0, 0, 1])) {
        return need::skip(NAME, &format!("the kernel has no SCTP: {error}"));
    }
    for setting in [Setting::Tc, Setting::Xdp] {
        println!("setting: {setting:?}");
        let cluster = Cluster::start(setting);
        for pod in &cluster.world.pods {
            for at in pod.host.at(PORT) {
                serve(&pod.host.ns, &pod.host.name, at);
            }
        }
        let port = Port { name: "sctp", transport: Transport::Tcp, port: 9, target: PORT, node_port: 30_009 };
        let service = Service::new("sctp", 1).port(port).node_port().endpoints(&cluster.world.pods);
        cluster.agent.write("sctp.yaml", &service.yaml().replace("protocol: TCP", "protocol: SCTP")).unwrap();
        cluster.agent.wait_for_service(&service).unwrap();
        let all: BTreeSet<_> = cluster.pod_names().into_iter().collect();
        let pod = cluster.pod(0);
        for (to, own) in service.cluster(9).into_iter().zip(pod.addresses()) {
            let mut seen = BTreeSet::new();
            for n in 0..60 {
                let (name, client) = ask(&pod.ns, to, &format!("question {n}"));
                assert!(name == pod.name || client.ip() == own, "{name} saw {client}");
                seen.insert(name);
            }
            assert_eq!(seen, all, "{to}");
        }
        for to in cluster.world.nodes[0].at(30_009) {
            let seen: BTreeSet<_> =
                (0..60).map(|n| ask(&cluster.client().ns, to, &format!("question {n}")).0).collect();
            assert_eq!(seen, all, "{to}");
        }
    }
}
