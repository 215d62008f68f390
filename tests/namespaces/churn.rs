//! Endpoints come and go under load, and no request notices.

use svc_tests::client::Transport;
use svc_tests::load::{Kind, Load};
use svc_tests::manifest::Service;

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
