//! Hosts that ask strangely, or say to have what is ours.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use svc_agent::sys::packet::PacketSocket;
use svc_tests::manifest::Service;
use svc_tests::wire;

use super::site::{Site, mac, ready, said, segment, until};

const ARP: u16 = 0x0806;

/// An Ethernet frame with an ARP message for IPv4 over Ethernet.
fn frame(from: [u8; 6], operation: u16, sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    [
        &[0xff; 6][..],
        &from,
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4],
        &operation.to_be_bytes(),
        &sender_mac,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat()
}

fn bytes(mac: &str) -> [u8; 6] {
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn strange_requests_are_not_answered_and_who_else_has_an_address_is_told() {
    if !ready("strange_requests_are_not_answered_and_who_else_has_an_address_is_told") {
        return;
    }
    let site = Site::start(&[]);
    let service = Service::new("web", 1).echo().load_balancer().endpoints(&site.world.pods);
    site.apply(std::slice::from_ref(&service));
    let holders = site.elected(&service.lb_ips());
    site.wait_until_held(&holders);
    let [v4, v6] = service.lb_ips();
    let IpAddr::V4(vip) = v4 else { panic!() };
    let client = &site.world.clients[0];
    let (own, host) = (bytes(&mac(client)), Ipv4Addr::new(192, 168, 60, 203));

    // Nothing but the last of these is a question of a host.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let index = said(client, "cat", &["/proc/net/dev_mcast"]).lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let index = words.next()?.parse().ok()?;
        (words.next()? == "eth0").then_some(index)
    });
    let handle = runtime.handle().clone();
    let listener = client.ns.run(move || {
        let _entered = handle.enter();
        PacketSocket::open(index.unwrap(), ARP, &[]).unwrap()
    });
    let listener = listener.unwrap();
    let group = [1, 0, 0x5e, 0, 0, 1];
    let mut other_hardware = frame(own, 1, own, host, vip);
    other_hardware[15] = 6;
    let short = frame(own, 1, own, host, vip)[..30].to_vec();
    let frames = [
        frame(own, 1, [0xff; 6], host, vip),
        frame(own, 1, group, host, vip),
        frame(own, 1, [0; 6], host, vip),
        frame(own, 3, own, host, vip),
        frame(own, 1, own, host, Ipv4Addr::new(192, 168, 60, 77)),
        other_hardware,
        short,
        frame(own, 1, own, host, vip),
    ];
    wire::send(&client.ns, "eth0", &frames).unwrap();
    let answers = runtime.block_on(async {
        let mut answers = Vec::new();
        let mut buffer = [0; 64];
        while let Ok(received) = tokio::time::timeout(Duration::from_secs(2), listener.receive(&mut buffer)).await {
            let received = received.unwrap();
            // What this host sends itself is not for it; requests of others, and announcements, are not answers.
            if received.for_us && buffer[7] == 2 && buffer[14..18] != buffer[24..28] {
                answers.push(buffer[..28].to_vec());
            }
        }
        answers
    });
    let expected = &frame(own, 2, bytes(&site.mac(holders[&v4])), vip, host)[14..];
    assert_eq!(answers.len(), 1, "{answers:02x?}");
    assert_eq!(
        (&answers[0][..18], &answers[0][18..24], &answers[0][24..]),
        (&expected[..18], &own[..], &expected[24..])
    );

    // Somebody is about to take the addresses: IPv6 finds out by itself.
    let thief = &site.world.clients[1];
    for which in ["all", "eth0"] {
        thief.ns.sysctl(&format!("net/ipv6/conf/{which}/accept_dad"), "1").unwrap();
    }
    thief.ns.ip(&format!("addr add {v6}/64 dev eth0")).unwrap();
    until("the duplicate to be found", || {
        let shown = said(thief, "ip", &["-6", "addr", "show", "dev", "eth0", "to", &v6.to_string()]);
        if shown.contains("dadfailed") { Ok(()) } else { Err(shown) }
    });
    let probed = said(thief, "arping", &["-0", "-r", "-c", "1", "-w", "2", "-i", "eth0", &vip.to_string()]);
    assert_eq!(probed.to_lowercase().trim(), site.mac(holders[&v4]));

    // Somebody who does not ask.
    wire::send(&client.ns, "eth0", &[frame(own, 2, own, vip, vip)]).unwrap();
    let holder = &site.agents[holders[&v4]];
    let expected = format!("{} on `eth0` says to have {vip}, too", mac(client));
    until("the status to tell", || {
        let reason = segment(holder).reason;
        if reason.contains(&expected) { Ok(()) } else { Err(reason) }
    });
    // It stays as it was.
    site.wait_until_held(&holders);
}
