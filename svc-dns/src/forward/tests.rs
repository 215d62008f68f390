//! Upstream servers that answer, lie, cut short and keep silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::cache::{Cache, Key};
use super::sift::sift;
use super::{Asking, Forwarded, Forwarder};
use crate::fixtures::{name, question};

fn asking(text: &str) -> Asking {
    Asking { question: question(text, "A"), dnssec: false, unchecked: false }
}

fn address(text: &str, last: u8, ttl: u32) -> Record {
    Record::from_rdata(name(text), ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, last))))
}

fn alias(text: &str, target: &str) -> Record {
    Record::from_rdata(name(text), 60, RData::CNAME(CNAME(name(target))))
}

fn soa(text: &str, ttl: u32, minimum: u32) -> Record {
    Record::from_rdata(name(text), ttl, RData::SOA(SOA::new(name(text), name(text), 1, 1, 1, 1, minimum)))
}

fn message(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
    let mut message = Message::query();
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    message.answers = answers;
    message.authorities = authorities;
    message
}

/// A server that answers over UDP with what `answer` makes of the request, any number of messages. Counts requests.
async fn server(answer: impl Fn(Message) -> Vec<Message> + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (addr, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
            for response in answer(Message::from_vec(&buffer[..len]).unwrap()) {
                socket.send_to(&response.to_vec().unwrap(), client).await.unwrap();
            }
        }
    });
    (addr, asked)
}

fn good(mut request: Message, last: u8) -> Message {
    request.metadata.message_type = MessageType::Response;
    let name = request.queries[0].name().to_string();
    request.answers.push(address(name.trim_end_matches('.'), last, 60));
    request
}

fn lasts(found: &Forwarded) -> Vec<u8> {
    let last = |record: &Record| match &record.data {
        RData::A(address) => Some(address.0.octets()[3]),
        _ => None,
    };
    found.answers.iter().filter_map(last).collect()
}

#[tokio::test]
async fn an_answer_is_remembered_whatever_the_case_of_the_next_question() {
    let (addr, asked) = server(|request| vec![good(request, 1)]).await;
    let forwarder = Forwarder::new(&[addr], 10);
    assert_eq!(lasts(&forwarder.ask(&asking("www.example.com")).await.unwrap()), [1]);
    let found = forwarder.ask(&asking("WWW.example.com")).await.unwrap();
    assert_eq!((lasts(&found), found.answers[0].name.to_string()), (vec![1], "WWW.example.com.".to_owned()));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn answers_with_another_id_or_to_another_question_are_not_looked_at() {
    let (addr, _) = server(|request| {
        let mut guessed = good(request.clone(), 66);
        guessed.metadata.id = guessed.metadata.id.wrapping_add(1);
        let mut other = good(request.clone(), 67);
        other.queries = vec![question("www.example.org", "A")];
        let mut echo = good(request.clone(), 68);
        echo.metadata.message_type = MessageType::Query;
        vec![guessed, other, echo, good(request, 1)]
    })
    .await;
    assert_eq!(lasts(&Forwarder::new(&[addr], 10).ask(&asking("www.example.com")).await.unwrap()), [1]);
}

#[tokio::test]
async fn a_server_that_is_silent_refuses_or_fails_is_passed_over_and_asked_last() {
    let (silent, silent_asked) = server(|_| Vec::new()).await;
    let (failing, _) = server(|mut request| {
        request.metadata.message_type = MessageType::Response;
        request.metadata.response_code = ResponseCode::ServFail;
        vec![request]
    })
    .await;
    // Nobody is there any more.
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (good_one, _) = server(|request| vec![good(request, 1)]).await;
    let forwarder = Forwarder::new(&[closed, failing, silent, good_one], 10);
    assert_eq!(lasts(&forwarder.ask(&asking("a.example.com")).await.unwrap()), [1]);
    let begun = Instant::now();
    assert_eq!(lasts(&forwarder.ask(&asking("b.example.com")).await.unwrap()), [1]);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(silent_asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn when_nobody_can_tell_nobody_is_asked_again_for_a_moment() {
    let (failing, asked) = server(|mut request| {
        request.metadata.message_type = MessageType::Response;
        request.metadata.response_code = ResponseCode::Refused;
        vec![request]
    })
    .await;
    let forwarder = Forwarder::new(&[failing], 10);
    assert_eq!(forwarder.ask(&asking("www.example.com")).await, None);
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(forwarder.ask(&asking("www.example.com")).await.unwrap().code, ResponseCode::ServFail);
    assert_eq!(asked.load(Ordering::Relaxed), before);
    assert_eq!(Forwarder::new(&[], 10).ask(&asking("www.example.com")).await, None);
}

#[tokio::test]
async fn what_is_cut_short_is_asked_again_over_tcp() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(addr).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let (len, client) = udp.recv_from(&mut buffer).await.unwrap();
        let mut cut = good(Message::from_vec(&buffer[..len]).unwrap(), 66);
        cut.metadata.truncation = true;
        udp.send_to(&cut.to_vec().unwrap(), client).await.unwrap();
        let (mut stream, _) = tcp.accept().await.unwrap();
        let len = stream.read_u16().await.unwrap();
        let mut request = vec![0; len.into()];
        stream.read_exact(&mut request).await.unwrap();
        let mut whole = good(Message::from_vec(&request).unwrap(), 1);
        for last in 2..=200 {
            whole.answers.push(address("www.example.com", last, 60));
        }
        let bytes = whole.to_vec().unwrap();
        stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    assert_eq!(lasts(&Forwarder::new(&[addr], 10).ask(&asking("www.example.com")).await.unwrap()).len(), 200);
}

#[test]
fn only_what_belongs_to_the_question_is_taken_over() {
    let answers = vec![
        address("edge.example.net", 1, 60),
        alias("www.example.com", "edge.example.net"),
        address("bank.example.org", 66, 60),
        alias("elsewhere.example.org", "edge.example.net"),
    ];
    let authorities = vec![soa("example.org", 60, 60)];
    let found = sift(&asking("www.example.com"), message(ResponseCode::NoError, answers, authorities)).unwrap();
    let types: Vec<_> = found.answers.iter().map(Record::record_type).collect();
    assert_eq!((types, lasts(&found)), (vec![RecordType::CNAME, RecordType::A], vec![1]));
    assert!(found.authorities.is_empty());
    let circle = vec![alias("a.example", "b.example"), alias("b.example", "a.example")];
    assert_eq!(sift(&asking("a.example"), message(ResponseCode::NoError, circle, vec![])).unwrap().answers.len(), 2);
    assert_eq!(sift(&asking("a.example"), message(ResponseCode::Refused, vec![], vec![])), None);
}

#[test]
fn answers_hold_as_long_as_they_say_and_no_answer_as_long_as_the_zone_says() {
    let now = Instant::now();
    let later = |seconds| now + Duration::from_secs(seconds);
    let mut cache = Cache::new(10);
    let keep = |cache: &mut Cache, text: &str, code, answers, authorities| {
        let found = Forwarded { code, answers, authorities, authentic: false };
        cache.insert(Key::of(&asking(text)), &found, now);
    };
    let get = |cache: &Cache, text: &str, seconds| cache.get(&Key::of(&asking(text)), later(seconds));
    keep(
        &mut cache,
        "a.example",
        ResponseCode::NoError,
        vec![address("a.example", 1, 60), address("a.example", 2, 30)],
        vec![],
    );
    let found = get(&cache, "a.example", 29).unwrap();
    assert_eq!(found.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [31, 1]);
    assert_eq!(get(&cache, "a.example", 30), None);
    keep(&mut cache, "b.example", ResponseCode::NXDomain, vec![], vec![soa("example", 900, 20)]);
    assert!(get(&cache, "b.example", 19).is_some() && get(&cache, "b.example", 20).is_none());
    keep(&mut cache, "c.example", ResponseCode::NXDomain, vec![], vec![]);
    assert_eq!(get(&cache, "c.example", 0), None);
    keep(&mut cache, "d.example", ResponseCode::NoError, vec![address("d.example", 1, 1_000_000)], vec![]);
    assert!(get(&cache, "d.example", 3599).is_some() && get(&cache, "d.example", 3600).is_none());
    keep(&mut cache, "e.example", ResponseCode::NoError, vec![address("e.example", 1, 0)], vec![]);
    assert_eq!(get(&cache, "e.example", 0), None);
    let signed = Asking { dnssec: true, ..asking("a.example") };
    assert_eq!(cache.get(&Key::of(&signed), now), None);
}

#[test]
fn a_full_cache_makes_room_and_never_grows() {
    let now = Instant::now();
    let mut cache = Cache::new(16);
    for index in 0..1000 {
        let text = format!("n{index}.example");
        let found = Forwarded {
            code: ResponseCode::NoError,
            answers: vec![address(&text, 1, 60)],
            authorities: Vec::new(),
            authentic: false,
        };
        cache.insert(Key::of(&asking(&text)), &found, now);
        assert!(cache.len() <= 16);
        assert!(cache.get(&Key::of(&asking(&text)), now).is_some());
    }
}
