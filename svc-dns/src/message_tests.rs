//! What is answered at all, and what fits.

use std::sync::{Arc, RwLock};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use proptest::prelude::*;
use serde_json::json;

use crate::fixtures::{question, service, zone};
use crate::forward::Forwarder;
use crate::message::Transport;
use crate::server::{Begun, Responder};
use crate::zone::Zone;

fn responder(zone: Zone) -> Responder {
    Responder::new(Arc::new(RwLock::new(zone)), Forwarder::new(&[], 16))
}

fn request(question: Query) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question);
    message
}

fn response(responder: &Responder, request: &Message, transport: Transport) -> Message {
    match responder.begin(&request.to_vec().unwrap(), transport) {
        Begun::Response(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn respond(request: &Message) -> Message {
    response(&responder(zone()), request, Transport::Udp)
}

fn with_edns(mut request: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(0);
    request.set_edns(edns);
    request
}

/// A headless Service with so many endpoints.
fn crowd(count: u16) -> Zone {
    let mut zone = zone();
    let endpoints: Vec<_> =
        (0..count).map(|index| json!({"address": format!("10.4.{}.{}", index / 250, index % 250 + 1)})).collect();
    zone.insert(service(&json!({"namespace": "default", "name": "crowd", "headless": true, "endpoints": endpoints})));
    zone
}

#[test]
fn the_header_says_what_this_server_is() {
    let question = question("web.default.svc.cluster.local", "A");
    let mut request = request(question.clone());
    request.metadata.checking_disabled = true;
    let response = respond(&request);
    let header = response.metadata;
    assert_eq!((header.id, header.message_type, header.op_code), (0x1234, MessageType::Response, OpCode::Query));
    assert!(header.authoritative && header.recursion_desired && header.recursion_available && header.checking_disabled);
    assert!(!header.truncation && !header.authentic_data && response.edns.is_none());
    assert_eq!(response.queries, [question]);
}

#[test]
fn the_question_comes_back_letter_by_letter() {
    let response = respond(&request(question("wEB.Default.SVC.cluster.LOCAL", "A")));
    assert_eq!(response.queries[0].name().to_string(), "wEB.Default.SVC.cluster.LOCAL.");
    assert_eq!(response.answers[0].name.to_string(), "wEB.Default.SVC.cluster.LOCAL.");
}

#[test]
fn what_is_no_question_of_ours_is_refused_each_in_its_way() {
    let web = || question("web.default.svc.cluster.local", "A");
    let of_class = |class| {
        let mut question = web();
        question.set_query_class(class);
        request(question)
    };
    let mut update = request(web());
    update.metadata.op_code = OpCode::Update;
    let mut none = request(web());
    none.queries.clear();
    let mut two = request(web());
    two.add_query(web());
    let mut late = with_edns(request(web()), 1232);
    late.edns.as_mut().unwrap().set_version(1);
    for (request, code) in [
        (of_class(DNSClass::CH), ResponseCode::Refused),
        (of_class(DNSClass::ANY), ResponseCode::Refused),
        (request(question("cluster.local", "AXFR")), ResponseCode::Refused),
        (request(Query::query(crate::fixtures::name("cluster.local"), RecordType::IXFR)), ResponseCode::Refused),
        (request(Query::query(crate::fixtures::name("cluster.local"), RecordType::OPT)), ResponseCode::FormErr),
        (update, ResponseCode::NotImp),
        (none, ResponseCode::FormErr),
        (two, ResponseCode::FormErr),
        (late, ResponseCode::BADVERS),
    ] {
        let response = respond(&request);
        // Of the two codes with the number 16 the parser knows one.
        assert_eq!(u16::from(response.metadata.response_code), u16::from(code), "{request}");
        assert_eq!(response.metadata.id, 0x1234);
        assert!(response.answers.is_empty());
    }
}

#[test]
fn an_answer_is_never_answered() {
    let mut answer = request(question("web.default.svc.cluster.local", "A"));
    answer.metadata.message_type = MessageType::Response;
    for bytes in [answer.to_vec().unwrap(), Vec::new(), vec![0; 11]] {
        assert!(matches!(responder(zone()).begin(&bytes, Transport::Udp), Begun::Nothing), "{bytes:?}");
    }
}

#[test]
fn garbage_behind_a_good_header_is_a_format_error() {
    let mut bytes = request(question("web.default.svc.cluster.local", "A")).to_vec().unwrap();
    bytes.truncate(20);
    let Begun::Response(bytes) = responder(zone()).begin(&bytes, Transport::Udp) else { panic!() };
    let response = Message::from_vec(&bytes).unwrap();
    assert_eq!((response.metadata.response_code, response.metadata.id), (ResponseCode::FormErr, 0x1234));
}

#[test]
fn what_does_not_fit_is_cut_with_some_answers_left_and_fits_over_tcp() {
    let responder = responder(crowd(200));
    let plain = request(question("crowd.default.svc.cluster.local", "A"));
    for (request, limit, some) in
        [(plain.clone(), 512, 28), (with_edns(plain.clone(), 4096), 1232, 70), (with_edns(plain.clone(), 100), 512, 28)]
    {
        let bytes = match responder.begin(&request.to_vec().unwrap(), Transport::Udp) {
            Begun::Response(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        let response = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= limit && response.metadata.truncation, "{} {limit}", bytes.len());
        assert!((some - 2..200).contains(&response.answers.len()), "{} answers", response.answers.len());
        assert_eq!(response.edns.is_some(), request.edns.is_some());
    }
    let whole = response(&responder, &plain, Transport::Tcp);
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
}

#[test]
fn what_nobody_asked_for_is_left_out_without_a_word() {
    let mut zone = zone();
    let endpoints: Vec<_> = (1..=14)
        .map(|index| {
            json!({"address": format!("10.5.0.{index}"), "hostname": format!("member-with-a-long-name-{index}"),
            "ports": [{"name": "p", "protocol": "TCP", "port": 1}]})
        })
        .collect();
    zone.insert(service(&json!({"namespace": "default", "name": "long", "headless": true, "endpoints": endpoints})));
    let request = with_edns(request(question("_p._tcp.long.default.svc.cluster.local", "SRV")), 1232);
    let response = response(&responder(zone), &request, Transport::Udp);
    assert_eq!((response.answers.len(), response.metadata.truncation), (14, false));
    assert!(response.additionals.is_empty());
}

#[test]
fn the_first_of_several_addresses_is_another_one_each_time() {
    let responder = responder(crowd(4));
    let ask = || {
        let request = request(question("crowd.default.svc.cluster.local", "A"));
        response(&responder, &request, Transport::Udp).answers[0].data.to_string()
    };
    let mut firsts: Vec<String> = (0..4).map(|_| ask()).collect();
    firsts.sort();
    assert_eq!(firsts, ["10.4.0.1", "10.4.0.2", "10.4.0.3", "10.4.0.4"]);
}

#[test]
fn aliases_within_the_domain_are_followed_and_circles_end() {
    let inner = respond(&request(question("inner.default.svc.cluster.local", "A")));
    let types: Vec<_> = inner.answers.iter().map(hickory_proto::rr::Record::record_type).collect();
    assert_eq!((types, inner.metadata.authoritative), (vec![RecordType::CNAME, RecordType::A], true));
    let circle = respond(&request(question("loop-a.default.svc.cluster.local", "A")));
    assert_eq!(circle.metadata.response_code, ResponseCode::ServFail);
    assert!(circle.answers.len() <= 8);
}

#[test]
fn who_does_not_want_recursion_gets_what_is_known_here() {
    let mut elsewhere = request(question("www.example.com", "A"));
    elsewhere.metadata.recursion_desired = false;
    assert_eq!(respond(&elsewhere).metadata.response_code, ResponseCode::Refused);
    let mut alias = request(question("out.default.svc.cluster.local", "A"));
    alias.metadata.recursion_desired = false;
    let alias = respond(&alias);
    assert_eq!((alias.answers.len(), alias.metadata.response_code), (1, ResponseCode::NoError));
}

proptest! {
    #[test]
    fn no_bytes_whatsoever_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(responder(zone()).begin(&bytes, Transport::Udp));
    }

    #[test]
    fn a_request_with_any_byte_changed_gets_a_response_that_fits(
        place in 0_usize..70, byte: u8, cut in 0_usize..80, payload: u16,
    ) {
        let request = with_edns(request(question("my-pet.db.default.svc.cluster.local", "A")), payload);
        let mut bytes = request.to_vec().unwrap();
        if let Some(place) = bytes.get_mut(place) {
            *place = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(40)));
        if let Begun::Response(response) = responder(crowd(100)).begin(&bytes, Transport::Udp) {
            prop_assert!(response.len() <= 1232);
            prop_assert_eq!(&response[..2], &bytes[..2]);
            prop_assert!(Message::from_vec(&response).is_ok());
        }
    }
}
