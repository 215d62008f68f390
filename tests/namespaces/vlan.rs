//! Frames with VLAN tags: the kernel takes the outer tag off before tc, XDP sees it in the frame.

use std::time::{Duration, Instant};

use svc_tests::manifest::Service;
use svc_tests::packet::Frame;
use svc_tests::{need, wire};

use crate::cluster::{Cluster, Setting};

/// What stands between the addresses and the type of a frame.
const TAGS: [(u16, &[u8]); 5] = [
    (20_001, &[0x81, 0x00, 0x00, 0x05]),
    // Priority alone.
    (20_002, &[0x81, 0x00, 0xe0, 0x00]),
    (20_003, &[0x88, 0xa8, 0x00, 0x07]),
    (20_004, &[0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x00, 0x05]),
    (20_005, &[0x81, 0x00, 0x00, 0x07, 0x81, 0x00, 0x00, 0x05]),
];
/// Source port of a frame without any.
const PLAIN: u16 = 20_000;

#[test]
fn b07_frames_with_tags_are_left_alone_at_every_hook() {
    if !need::root("b07_frames_with_tags_are_left_alone_at_every_hook") {
        return;
    }
    for setting in [Setting::Tc, Setting::Xdp] {
        let cluster = Cluster::start(setting);
        cluster.serve(Service::new("web", 1).echo().node_port());
        let (client, node) = (cluster.client(), &cluster.world.nodes[0]);
        for family in 0..2 {
            let to = node.at(30_007)[family].to_string();
            let frame = |port: u16, tags: &[u8]| {
                let from = client.at(port)[family].to_string();
                let mut frame = Frame::udp(&from, &to).macs([2, 0, 0, 0, 0, 0x77], [0xff; 6]).build();
                frame.splice(12..12, tags.iter().copied());
                frame
            };
            // The one without a tag comes last: when it was seen, the others were.
            let tagged = TAGS.iter().map(|(port, tags)| frame(*port, tags));
            let frames: Vec<_> = tagged.chain([frame(PLAIN, &[])]).collect();
            wire::send(&client.ns, "eth0", &frames).unwrap();
            let from = |port| client.at(port)[family];
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                let flows = cluster.agent.flows().unwrap();
                if flows.iter().any(|flow| flow.client == from(PLAIN)) {
                    let of_tagged = |port: u16| flows.iter().any(|flow| flow.client == from(port));
                    let seen: Vec<_> = TAGS.iter().filter(|(port, _)| of_tagged(*port)).collect();
                    assert!(seen.is_empty(), "{setting:?}: {seen:?}");
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "{setting:?}: the frame without a tag was not translated: {flows:?}"
                );
            }
        }
    }
}
