//! What an error quotes: as little as eight bytes, options, extensions, and what shows no connection.

use svc_common::{net::proto, outcome::Outcome, packet::Hook, reason::Reason};
use svc_tests::{
    message::Message, oracle::ROUTER_MAC, oracle::UPLINK, oracle::UPLINK_MAC, oracle::with_oracle, packet::Frame,
    packet::assert_frames_eq,
};

use super::{LOCAL, REMOTE, quotes};

#[test]
fn b40_extensions_and_options_inside_and_outside_stay_as_they_are() {
    with_oracle(|oracle| {
        let path = REMOTE[0];
        path.open(oracle, 100, proto::UDP, Frame::udp);
        for options in [&[][..], &[1, 1, 1, 0], &[1; 40]] {
            for outer in [&[][..], &[1; 40]] {
                let seen = Frame::udp(path.source, path.backend).options(options).build();
                let sent = Frame::udp(path.client, path.vip).options(options).build();
                // RFC 4884: the quote filled up to 128 bytes, its length in words, an extension with a checksum.
                let quote = |frame: &[u8]| {
                    let mut quote = frame[14..].to_vec();
                    quote.resize(128, 0);
                    quote.extend([0x20, 0, 0xab, 0xcd, 0, 8, 1, 1, 0, 0x12, 0x34, 0x56]);
                    quote
                };
                let error = Message::new(path.router, path.source_addr, 11, 0).rest([0, 32, 0, 0]).options(outer);
                let run = oracle.run(Hook::Ingress, UPLINK, &error.clone().payload(&quote(&seen)).build());
                let expected = Message::new(path.router, path.client_addr, 11, 0).rest([0, 32, 0, 0]).options(outer);
                let expected = expected.ttl(63).macs(UPLINK_MAC, ROUTER_MAC).payload(&quote(&sent));
                assert_frames_eq(&run.bytes, &expected.build());
            }
        }
    });
}

#[test]
fn b40_extension_headers_in_the_quote_are_followed() {
    with_oracle(|oracle| {
        let path = REMOTE[1];
        path.open(oracle, 100, proto::UDP, Frame::udp);
        let (kind, code, rest) = path.errors[0];
        let destination = (60, vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // A Fragment header of the first piece, and of another one.
        let piece = |low: u8| (44, vec![0, 0, low, 0xde, 0xad, 0xbe, 0xef]);
        for (extensions, shown) in [
            (vec![destination.clone()], true),
            (vec![piece(1)], true),
            (vec![destination.clone(), piece(1), destination], true),
            (vec![piece(9)], false),
        ] {
            let seen = Frame::udp(path.source, path.backend).extensions(&extensions).build();
            let sent = Frame::udp(path.client, path.vip).extensions(&extensions).build();
            let error = Message::error(path.router, path.source_addr, (kind, code), &seen, 600).rest(rest).build();
            let expected = Message::error(path.router, path.client_addr, (kind, code), &sent, 600).rest(rest);
            for hook in [Hook::Xdp, Hook::Ingress] {
                let run = oracle.run(hook, UPLINK, &error);
                if shown {
                    let expected = expected.clone().ttl(63).macs(UPLINK_MAC, ROUTER_MAC);
                    assert_frames_eq(&run.bytes, &expected.build());
                } else {
                    assert_eq!(run.outcome, Outcome::Pass);
                    assert_frames_eq(&run.bytes, &error);
                }
            }
        }
    });
}

#[test]
fn b40_a_quoted_datagram_without_checksum_stays_without() {
    with_oracle(|oracle| {
        for (id, path) in (100..).step_by(100).zip(LOCAL) {
            path.open(oracle, id, proto::UDP, Frame::udp);
            let (kind, code, rest) = path.errors[0];
            let seen = Frame::udp(path.vip, path.client).zero_checksum().build();
            let sent = Frame::udp(path.backend, path.client).zero_checksum().build();
            let error = Message::error(path.router, path.vip_addr, (kind, code), &seen, 60).rest(rest).build();
            let run = oracle.run(Hook::Ingress, UPLINK, &error);
            let expected = Message::error(path.router, path.backend_addr, (kind, code), &sent, 60).rest(rest);
            assert_frames_eq(&run.bytes, &expected.build());
        }
    });
}

#[test]
fn b40_quotes_that_show_no_connection_pass_untouched_and_are_counted() {
    with_oracle(|oracle| {
        let mut counted = 0;
        for (id, path) in (100..).step_by(100).zip(REMOTE) {
            path.open(oracle, id, proto::UDP, Frame::udp);
            let (kind, code, _) = path.errors[0];
            let v6 = path.vip.starts_with('[');
            let seen = Frame::udp(path.source, path.backend).build();
            let changed = |offset: usize, value: u8| {
                let mut seen = seen.clone();
                seen[14 + offset] = value;
                seen
            };
            let least = quotes(&seen)[0];
            let (protocol, icmp) = if v6 { (6, 58) } else { (9, 1) };
            let mut cases = vec![
                (changed(protocol, icmp), "a quoted message"),
                (changed(protocol, 200), "an unknown protocol"),
                (changed(protocol, 44), "a fragment of IPv6"),
                (changed(0, 0x55), "no IP"),
                (seen[..14 + least - 1].to_vec(), "less than eight bytes"),
                (seen[..14 + 19].to_vec(), "less than a header"),
                (seen[..14].to_vec(), "nothing"),
            ];
            if !v6 {
                cases.push((changed(7, 1), "a later fragment"));
                cases.push((changed(0, 0x44), "a header of 16 bytes"));
                cases.push((changed(0, 0x4f), "a header longer than the quote"));
            }
            for (quoted, what) in cases {
                let error = Message::error(path.router, path.source_addr, (kind, code), &quoted, 60).build();
                for hook in [Hook::Xdp, Hook::Ingress, Hook::Egress] {
                    let run = oracle.run(hook, UPLINK, &error);
                    assert_eq!(run.outcome, Outcome::Pass, "{what}");
                    assert_frames_eq(&run.bytes, &error);
                }
                counted += 1;
            }
            // Good, but sent to somebody else.
            let error = Message::error(path.router, path.client_addr, (kind, code), &seen, 60).build();
            let run = oracle.run(Hook::Ingress, UPLINK, &error);
            assert_eq!(run.outcome, Outcome::Pass);
            counted += 1;
        }
        assert_eq!(oracle.memory.counters[&Reason::IcmpQuote], counted);
    });
}
