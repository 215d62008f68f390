//! Endpoints come and go under load, and no request notices.

use std::io::{Read as _, Write as _};

use svc_tests::client::{self, Transport};
use svc_tests::load::{Kind, Load};
use svc_tests::manifest::{Endpoint, Service};

use crate::cluster::in_every_setting;

#[test]
fn b77_no_request_fails_while_backends_are_added_and_removed() {
    in_every_setting("b77_no_request_fails_while_backends_are_added_and_removed", |cluster| {
        let mut service = cluster.serve(Service::new("web", 1).http().echo().load_balancer());
        let all = service.endpoints.clone();
        let outside = [cluster.world.nodes[0].at(30_080)[0], service.lb(80)[1]];
        let loads = [
            Load::start(&cluster.pod(0).ns, Kind::Http, &service.cluster(80)).unwrap(),
            Load::start(&cluster.client().ns, Kind::Http, &outside).unwrap(),
            Load::start(&cluster.client().ns, Kind::Echo(Transport::Udp), &service.lb(7)).unwrap(),
        ];
        for round in 0..12 {
            let keep = [&[0, 1, 2][..], &[2, 3], &[0, 3], &[1], &[0, 1, 2, 3]][round % 5];
            service.endpoints = keep.iter().map(|&index| all[index].clone()).collect();
            cluster.agent.apply(&[&service]).unwrap();
            for load in &loads {
                load.pass(10).unwrap();
            }
        }
        for load in loads {
            load.stop().expect_all_good(100).unwrap();
        }
    });
}

#[test]
fn b77_no_request_fails_while_other_services_come_and_go() {
    in_every_setting("b77_no_request_fails_while_other_services_come_and_go", |cluster| {
        let service = cluster.serve(Service::new("web", 1).http().load_balancer());
        let load = Load::start(&cluster.client().ns, Kind::Http, &service.lb(80)).unwrap();
        for round in 0u8..10 {
            let name = format!("other-{round}");
            let other = Service::new(&name, 10 + round).echo().endpoints(&cluster.world.pods);
            cluster.agent.apply(&[&other]).unwrap();
            Transport::Udp.ask(&cluster.pod(0).ns, other.cluster(7)[0], "hello").unwrap();
            load.pass(5).unwrap();
            if round % 3 == 0 {
                cluster.agent.remove(&format!("{name}.yaml")).unwrap();
            }
        }
        load.stop().expect_all_good(50).unwrap();
    });
}

#[test]
fn b61_a_client_that_comes_again_from_its_port_leaves_a_backend_that_terminates_or_is_gone() {
    in_every_setting("b61_a_client_that_comes_again_from_its_port_leaves_a_backend", |cluster| {
        let mut service = cluster.serve(Service::new("web", 1).http().load_balancer());
        let all = service.endpoints.clone();
        // A pod of this node and one of the other.
        for (first, second, from) in [(0, 2, 21_000), (2, 0, 22_000)] {
            for terminates in [true, false] {
                for (to, step) in
                    service.cluster(80).into_iter().map(|to| (to, 0)).chain(service.lb(80).map(|to| (to, 2)))
                {
                    let client = if step == 0 { cluster.pod(1) } else { cluster.client() };
                    let port = from + step + u16::from(terminates) + if to.is_ipv4() { 0 } else { 10 };
                    let ask = || {
                        let mut stream = client::connect_from(&client.ns, port, to).unwrap();
                        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                        let mut answer = String::new();
                        // The server ends the connection first, so the port is free at once.
                        stream.read_to_string(&mut answer).unwrap();
                        answer
                    };
                    service.endpoints = vec![all[first].clone()];
                    cluster.agent.apply(&[&service]).unwrap();
                    assert!(ask().contains(&all[first].name), "{to}");
                    service.endpoints = vec![all[second].clone()];
                    if terminates {
                        let leaving = Endpoint { ready: false, terminating: true, ..all[first].clone() };
                        service.endpoints.push(leaving);
                    }
                    cluster.agent.apply(&[&service]).unwrap();
                    let answer = ask();
                    assert!(answer.contains(&all[second].name), "{to} from {port}: {answer}");
                }
            }
        }
    });
}
