//! The specification, row by row.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use serde_json::json;

use crate::answer::{Answer, answer};
use crate::fixtures::{name, question, service, zone, zone_with};
use crate::source::lines::Key;
use crate::zone::Zone;

const DOMAIN: &str = "cluster.local";

/// `name` is below the cluster domain unless it ends with a dot.
fn ask(zone: &Zone, name: &str, query_type: &str) -> Option<Answer> {
    let full = match name.strip_suffix('.') {
        Some(full) => full.to_owned(),
        None if name.is_empty() => DOMAIN.to_owned(),
        None => format!("{name}.{DOMAIN}"),
    };
    answer(zone, &question(&full, query_type))
}

/// What is in the answer section, sorted.
fn data(answer: &Answer) -> Vec<String> {
    let mut data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    data
}

fn check(name: &str, query_type: &str, wanted: &[&str]) {
    let found = ask(&zone(), name, query_type).unwrap_or_else(|| panic!("{name} {query_type} is forwarded"));
    assert_eq!(
        (found.code, data(&found)),
        (ResponseCode::NoError, wanted.iter().map(|text| (*text).to_owned()).collect()),
        "{name} {query_type}"
    );
    assert!(found.authoritative, "{name}");
    assert!(found.answers.iter().all(|record| record.ttl == 5), "{name}");
}

/// There is the name, but nothing of this type.
fn nothing(name: &str, query_type: &str) {
    negative(&zone(), name, query_type, ResponseCode::NoError);
}

fn missing(name: &str) {
    for query_type in ["A", "AAAA", "SRV", "ANY"] {
        negative(&zone(), name, query_type, ResponseCode::NXDomain);
    }
}

fn negative(zone: &Zone, name: &str, query_type: &str, code: ResponseCode) {
    let found = ask(zone, name, query_type).unwrap_or_else(|| panic!("{name} {query_type} is forwarded"));
    assert_eq!((found.code, found.answers.len()), (code, 0), "{name} {query_type}: {found:?}");
    let [soa] = &found.authorities[..] else { panic!("{name} {query_type}: {found:?}") };
    assert_eq!((soa.record_type(), soa.ttl, found.authoritative), (RecordType::SOA, 5, true), "{name} {query_type}");
}

#[test]
fn the_version_of_the_specification_is_told() {
    check("dns-version", "TXT", &["1.1.0"]);
    nothing("dns-version", "A");
}

#[test]
fn a_service_has_its_addresses_of_each_family() {
    check("web.default.svc", "A", &["10.3.0.1"]);
    check("web.default.svc", "AAAA", &["fd00::1"]);
    check("v4.kube-system.svc", "A", &["10.3.0.2"]);
    nothing("v4.kube-system.svc", "AAAA");
    nothing("web.default.svc", "TXT");
    nothing("web.default.svc", "CNAME");
}

#[test]
fn a_named_port_has_a_service_record_and_an_unnamed_one_has_none() {
    check("_https._tcp.web.default.svc", "SRV", &["0 100 443 web.default.svc.cluster.local."]);
    check("_dns._udp.web.default.svc", "SRV", &["0 100 53 web.default.svc.cluster.local."]);
    let found = ask(&zone(), "_https._tcp.web.default.svc", "SRV").unwrap();
    let glue: Vec<_> = found.additionals.iter().map(|record| (record.name.clone(), record.data.to_string())).collect();
    let web = name("web.default.svc.cluster.local");
    assert_eq!(glue, [(web.clone(), "10.3.0.1".to_owned()), (web, "fd00::1".to_owned())]);
    nothing("_https._tcp.web.default.svc", "A");
    nothing("_tcp.web.default.svc", "SRV");
    missing("_https._udp.web.default.svc");
    missing("_http._tcp.web.default.svc");
    missing("_._tcp.v4.kube-system.svc");
    missing("_tcp.v4.kube-system.svc");
    missing("https._tcp.web.default.svc");
}

#[test]
fn a_service_itself_tells_all_its_ports() {
    check(
        "web.default.svc",
        "SRV",
        &["0 50 443 web.default.svc.cluster.local.", "0 50 53 web.default.svc.cluster.local."],
    );
    check("v4.kube-system.svc", "SRV", &["0 100 80 v4.kube-system.svc.cluster.local."]);
}

#[test]
fn a_headless_service_has_the_addresses_of_its_endpoints_and_each_has_a_name() {
    check("db.default.svc", "A", &["10.3.0.100", "10.3.0.101"]);
    check("db.default.svc", "AAAA", &["fd00::100", "fd00::101"]);
    check("my-pet.db.default.svc", "A", &["10.3.0.100"]);
    check("my-pet.db.default.svc", "AAAA", &["fd00::100"]);
    check("10-3-0-101.db.default.svc", "A", &["10.3.0.101"]);
    check("fd00--101.db.default.svc", "AAAA", &["fd00::101"]);
    nothing("10-3-0-101.db.default.svc", "AAAA");
    missing("10-3-0-100.db.default.svc");
    missing("my-pet.web.default.svc");
    missing("x.my-pet.db.default.svc");
}

#[test]
fn a_headless_service_has_service_records_for_each_endpoint() {
    check(
        "_https._tcp.db.default.svc",
        "SRV",
        &[
            "0 33 6443 10-3-0-101.db.default.svc.cluster.local.",
            "0 33 6443 fd00--101.db.default.svc.cluster.local.",
            "0 33 6443 my-pet.db.default.svc.cluster.local.",
        ],
    );
    let found = ask(&zone(), "_https._tcp.db.default.svc", "SRV").unwrap();
    assert_eq!(found.additionals.len(), 4);
}

#[test]
fn a_headless_service_without_ready_endpoints_does_not_exist() {
    missing("none.default.svc");
    missing("_x._tcp.none.default.svc");
}

#[test]
fn addresses_lead_back_to_names() {
    check("1.0.3.10.in-addr.arpa.", "PTR", &["web.default.svc.cluster.local."]);
    check("100.0.3.10.in-addr.arpa.", "PTR", &["my-pet.db.default.svc.cluster.local."]);
    check("101.0.3.10.IN-ADDR.arpa.", "PTR", &["10-3-0-101.db.default.svc.cluster.local."]);
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    check(v6, "PTR", &["web.default.svc.cluster.local."]);
    nothing("1.0.3.10.in-addr.arpa.", "A");
    for elsewhere in ["9.0.3.10.in-addr.arpa.", "0.3.10.in-addr.arpa.", "1.1.0.3.10.in-addr.arpa.", "d.f.ip6.arpa."] {
        assert_eq!(ask(&zone(), elsewhere, "PTR"), None, "{elsewhere}");
    }
}

#[test]
fn an_alias_leads_elsewhere_whatever_is_asked() {
    for query_type in ["A", "AAAA", "SRV", "TXT"] {
        let found = ask(&zone(), "out.default.svc", query_type).unwrap();
        assert_eq!(data(&found), ["www.example.com."], "{query_type}");
        assert_eq!(found.follow, Some(name("www.example.com")), "{query_type}");
    }
    let found = ask(&zone(), "out.default.svc", "CNAME").unwrap();
    assert_eq!((data(&found), found.follow), (vec!["www.example.com.".to_owned()], None));
    missing("_http._tcp.out.default.svc");
}

#[test]
fn names_with_others_below_them_exist_and_have_nothing() {
    for empty in ["svc", "default.svc", "kube-system.svc", "dns", "_tcp.db.default.svc"] {
        nothing(empty, "A");
        nothing(empty, "SRV");
    }
    for absent in
        ["other.svc", "web.other.svc", "web.default", "web", "pod", "default.pod", "x.default.svc", "*.default.svc"]
    {
        missing(absent);
    }
    missing("www.example.com.default.svc");
    missing("www.example.com.svc");
    missing("www.example.com");
}

#[test]
fn the_domain_itself_says_who_serves_it() {
    check("", "NS", &["ns.dns.cluster.local."]);
    check("ns.dns", "A", &["192.0.2.53"]);
    nothing("", "A");
    nothing("ns.dns", "AAAA");
    let soa = ask(&zone(), "", "SOA").unwrap();
    assert!(data(&soa)[0].starts_with("ns.dns.cluster.local. hostmaster.cluster.local. "), "{soa:?}");
}

#[test]
fn everything_at_once_is_answered_with_next_to_nothing() {
    for existing in ["web.default.svc", "default.svc", "out.default.svc", "1.0.3.10.in-addr.arpa."] {
        let found = ask(&zone(), existing, "ANY").unwrap();
        assert_eq!((found.answers.len(), found.answers[0].record_type()), (1, RecordType::HINFO), "{existing}");
        assert_eq!(found.follow, None);
    }
}

#[test]
fn pods_have_names_only_if_the_operator_says_so() {
    missing("10-0-0-1.default.pod");
    let zone = zone_with(true);
    assert_eq!(data(&ask(&zone, "10-0-0-1.default.pod", "A").unwrap()), ["10.0.0.1"]);
    assert_eq!(data(&ask(&zone, "fd00--1.default.pod", "AAAA").unwrap()), ["fd00::1"]);
    for (name, code) in [
        ("10-0-0-1.default.pod", ResponseCode::NoError),
        ("default.pod", ResponseCode::NoError),
        ("10-0-0.default.pod", ResponseCode::NXDomain),
        ("web.default.pod", ResponseCode::NXDomain),
        ("10-0-0-256.default.pod", ResponseCode::NXDomain),
    ] {
        negative(&zone, name, "AAAA", code);
    }
}

#[test]
fn case_does_not_matter_and_stays_as_it_was_written() {
    let found = ask(&zone(), "wEb.DEFAULT.sVc", "A").unwrap();
    assert_eq!(data(&found), ["10.3.0.1"]);
    assert_eq!(found.answers[0].name.to_string(), "wEb.DEFAULT.sVc.cluster.local.");
}

#[test]
fn before_the_source_has_told_everything_nothing_is_said_not_to_exist() {
    let zone = Zone::new(zone().settings().clone(), 1);
    assert_eq!(ask(&zone, "web.default.svc", "A").unwrap().code, ResponseCode::ServFail);
    assert_eq!(ask(&zone, "www.example.com.", "A"), None);
}

#[test]
fn a_service_that_changes_or_goes_takes_its_names_along() {
    let mut zone = zone();
    let serial = zone.serial();
    zone.insert(service(&json!({"namespace": "default", "name": "web", "clusterIps": ["10.3.0.9"]})));
    assert_eq!(data(&ask(&zone, "web.default.svc", "A").unwrap()), ["10.3.0.9"]);
    assert_eq!(ask(&zone, "1.0.3.10.in-addr.arpa.", "PTR"), None);
    assert!(ask(&zone, "9.0.3.10.in-addr.arpa.", "PTR").is_some());
    assert!(zone.serial() > serial);
    let key = Key { namespace: "kube-system".into(), name: "v4".into() };
    zone.remove(&key);
    zone.remove(&key);
    negative(&zone, "v4.kube-system.svc", "A", ResponseCode::NXDomain);
    negative(&zone, "kube-system.svc", "A", ResponseCode::NXDomain);
    assert_eq!(ask(&zone, "2.0.3.10.in-addr.arpa.", "PTR"), None);
}

#[test]
fn two_services_of_one_address_are_both_its_names() {
    let mut zone = zone();
    zone.insert(service(&json!({"namespace": "default", "name": "too", "clusterIps": ["10.3.0.1"]})));
    let found = ask(&zone, "1.0.3.10.in-addr.arpa.", "PTR").unwrap();
    assert_eq!(data(&found), ["too.default.svc.cluster.local.", "web.default.svc.cluster.local."]);
    zone.remove(&Key { namespace: "default".into(), name: "web".into() });
    assert_eq!(data(&ask(&zone, "1.0.3.10.in-addr.arpa.", "PTR").unwrap()), ["too.default.svc.cluster.local."]);
}

#[test]
fn names_that_cannot_be_names_are_left_out() {
    let mut zone = zone();
    let before = zone.len();
    for name in ["a.b", "", "a b", &"x".repeat(64)] {
        zone.insert(service(&json!({"namespace": "default", "name": name, "clusterIps": ["10.3.0.77"]})));
    }
    assert_eq!(zone.len(), before);
    zone.insert(service(&json!({"namespace": "default", "name": "odd", "headless": true,
        "endpoints": [{"address": "10.3.0.78", "hostname": "a.b"}]})));
    assert_eq!(data(&ask(&zone, "10-3-0-78.odd.default.svc", "A").unwrap()), ["10.3.0.78"]);
}

proptest! {
    #[test]
    fn whatever_is_asked_about_the_domain_is_answered_in_one_of_three_ways(
        labels in proptest::collection::vec(
            prop_oneof!["[a-z_*-]{1,10}", Just("svc".to_owned()), Just("default".to_owned()), Just("db".to_owned()),
                Just("_tcp".to_owned()), Just("_https".to_owned()), Just("my-pet".to_owned()), Just("pod".to_owned())],
            0..7),
        query_type in prop_oneof![Just("A"), Just("AAAA"), Just("SRV"), Just("ANY"), Just("TXT"), Just("SOA")],
    ) {
        let found = ask(&zone(), &labels.join("."), query_type).unwrap();
        let negative = found.answers.is_empty();
        prop_assert_eq!(negative, !found.authorities.is_empty());
        prop_assert!(negative || found.code == ResponseCode::NoError);
        prop_assert!(found.code == ResponseCode::NoError || found.code == ResponseCode::NXDomain);
    }
}
