//! What `svcctl events` shows while packets are dropped and connections come and go.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use svc_agent::control::api::{Event, EventKind};
use svc_tests::agent::Agent;
use svc_tests::client::{Transport, UdpClient};
use svc_tests::manifest::Service;
use svc_tests::need;

use crate::cluster::{Cluster, Setting};

/// `svcctl events`, listening; ended when dropped.
struct Listener {
    child: Child,
    events: Receiver<Event>,
}

impl Listener {
    fn start(agent: &Agent, args: &[&str]) -> Self {
        let mut command = agent.svcctl().unwrap();
        command.args(["events", "-o", "json"]).args(args).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ended = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, events }
    }

    /// The first event that is looked for, of those that come until then.
    fn find(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
        let mut others = Vec::new();
        while let Ok(event) = self.events.recv_timeout(Duration::from_secs(15)) {
            if is_it(&event) {
                return event;
            }
            others.push(event);
        }
        panic!("no event of {what}, but {others:#?}");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn events_tell_of_dropped_packets_and_of_connections_that_begin_and_end() {
    if !need::root("events_tell_of_dropped_packets_and_of_connections_that_begin_and_end") {
        return;
    }
    let cluster = Cluster::start_with(Setting::Tc, &["--timeout-udp", "2", "--timeout-udp-answered", "2"]);
    let service = cluster.serve(Service::new("web", 1).echo().load_balancer());
    let local = Service::new("local", 2).echo().load_balancer().spec("externalTrafficPolicy: Local");
    let local = local.endpoints(&cluster.world.pods[2..]);
    cluster.agent.apply(&[&service, &local]).unwrap();
    let everything = Listener::start(&cluster.agent, &[]);
    let drops = Listener::start(&cluster.agent, &["--drops"]);
    let client = cluster.client();
    for (to, nowhere) in service.lb(7).into_iter().zip(local.lb(7)) {
        // Until the listeners are there.
        let begin = (0..50).find_map(|_| {
            let answer = Transport::Udp.ask(&client.ns, to, "hello").unwrap();
            let event = everything.events.recv_timeout(Duration::from_millis(200)).ok();
            event.map(|event| (event, answer))
        });
        let (begin, answer) = begin.expect("an event of a connection");
        assert_eq!((begin.kind, begin.destination, begin.protocol.as_str()), (EventKind::Begin, to, "UDP"));
        assert_eq!(begin.service.as_ref().map(|service| service.name.as_str()), Some("web"));
        assert_eq!(begin.snat.unwrap_or(begin.source), answer.client);
        everything.find("the end of the connection", |event| {
            let same = event.source == begin.source && event.destination == to && event.backend == begin.backend;
            same && event.kind == EventKind::End && event.reason.as_deref() == Some("timeout")
        });

        let mut socket = UdpClient::open(&client.ns, to.is_ipv4(), 0).unwrap();
        let port = socket.port().unwrap();
        assert!(socket.ask(nowhere, "hello").is_err());
        for listener in [&everything, &drops] {
            let drop = listener.find("a drop", |event| event.kind == EventKind::Drop && event.destination == nowhere);
            assert_eq!(drop.reason.as_deref(), Some("no_local_endpoint"));
            assert_eq!((drop.hook.as_deref(), drop.device.as_deref()), (Some("tc-ingress"), Some("eth0")));
            assert_eq!((drop.source.ip(), drop.source.port()), (client.addresses()[usize::from(!to.is_ipv4())], port));
            assert_eq!(drop.service.map(|service| service.name).as_deref(), Some("local"));
        }
    }
}
