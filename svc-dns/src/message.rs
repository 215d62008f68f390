//! Messages: what may be asked, and how an answer is put so that it fits (RFC 1035, 6891, 7766).

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

use crate::answer::Answer;

/// The largest UDP payload that is sent or asked for: one that no usual path has to fragment.
pub const MAX_UDP_BYTES: usize = 1232;
/// What a client without EDNS takes.
const PLAIN_UDP_BYTES: usize = 512;
/// What TCP carries.
const MAX_TCP_BYTES: usize = 65_535;
/// Bytes of a header.
const HEADER: usize = 12;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each.
    Udp,
    /// A connection.
    Tcp,
}

/// A request that makes sense.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked.
    pub question: Query,
    metadata: Metadata,
    edns: Option<Edns>,
    transport: Transport,
}

/// What came.
#[derive(Debug)]
pub enum Received {
    /// A question to answer.
    Request(Box<Request>),
    /// Something that is answered at once.
    Refused(Vec<u8>),
    /// Something that is not even a request: an answer to it could be answered again.
    Ignored,
}

/// Reads what a client sent.
pub fn receive(bytes: &[u8], transport: Transport) -> Received {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Received::Ignored };
    let [id0, id1, flags, _, questions0, questions1, ..] = *header;
    if flags & 0x80 != 0 {
        return Received::Ignored;
    }
    let op_code = OpCode::from_u8((flags >> 3) & 0xf);
    let refuse = |code| {
        let mut message = Message::error_msg(u16::from_be_bytes([id0, id1]), op_code, code);
        message.metadata.recursion_desired = flags & 1 != 0;
        Received::Refused(message.to_vec().unwrap_or_default())
    };
    if op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    // Looked at before anything is allocated for as many questions as it says there are.
    if [questions0, questions1] != [0, 1] {
        return refuse(ResponseCode::FormErr);
    }
    let Ok(message) = Message::from_vec(bytes) else { return refuse(ResponseCode::FormErr) };
    if message.metadata.message_type != MessageType::Query {
        return Received::Ignored;
    }
    let Some(question) = message.queries.first().cloned() else { return refuse(ResponseCode::FormErr) };
    let request = Request { question, metadata: message.metadata, edns: message.edns, transport };
    match request.objection() {
        Some(code) => Received::Refused(request.respond(Answer::error(code), 0)),
        None => Received::Request(Box::new(request)),
    }
}

impl Request {
    /// Why this is not answered.
    fn objection(&self) -> Option<ResponseCode> {
        if self.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Some(ResponseCode::BADVERS);
        }
        match (self.question.query_class(), self.question.query_type()) {
            (DNSClass::IN, RecordType::AXFR | RecordType::IXFR) => Some(ResponseCode::Refused),
            (_, RecordType::OPT | RecordType::TSIG) => Some(ResponseCode::FormErr),
            (DNSClass::IN, _) => None,
            _ => Some(ResponseCode::Refused),
        }
    }

    /// The client wants this server to ask others.
    pub fn wants_recursion(&self) -> bool {
        self.metadata.recursion_desired
    }

    /// The client wants signatures.
    pub fn wants_dnssec(&self) -> bool {
        self.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok)
    }

    /// The client checks signatures itself.
    pub fn checks_itself(&self) -> bool {
        self.metadata.checking_disabled
    }

    /// The response as it is sent: the question as it was written, what fits of the answer. `turn` moves the first of
    /// several records to another place, so that clients that take the first one spread.
    pub fn respond(&self, answer: Answer, turn: usize) -> Vec<u8> {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.authoritative = answer.authoritative;
        // Only to a client that asks for it, in either way (RFC 6840 section 5.8).
        message.metadata.authentic_data = answer.authentic && (self.metadata.authentic_data || self.wants_dnssec());
        message.metadata.response_code = answer.code;
        message.add_query(self.question.clone());
        message.answers = answer.answers;
        message.authorities = answer.authorities;
        message.additionals = answer.additionals;
        rotate(&mut message, turn);
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_BYTES as u16).set_version(0).set_dnssec_ok(self.wants_dnssec());
            message.set_edns(edns);
        }
        fit(message, self.limit())
    }

    fn limit(&self) -> usize {
        match (self.transport, &self.edns) {
            (Transport::Tcp, _) => MAX_TCP_BYTES,
            (Transport::Udp, None) => PLAIN_UDP_BYTES,
            (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).clamp(PLAIN_UDP_BYTES, MAX_UDP_BYTES),
        }
    }
}

/// Turns the records of the asked type, which come last, behind the aliases that lead to them.
fn rotate(message: &mut Message, turn: usize) {
    let Some(last) = message.answers.last().map(hickory_proto::rr::Record::record_type) else { return };
    let first = message.answers.iter().position(|record| record.record_type() == last).unwrap_or(0);
    if let Some(records) = message.answers.get_mut(first..).filter(|records| !records.is_empty()) {
        let turn = turn % records.len();
        records.rotate_left(turn);
    }
}

/// Drops what does not fit: what nobody asked for first, and only what was asked for makes it truncated. Some of the
/// answers stay in, for clients that do not know to ask again over TCP.
fn fit(mut message: Message, limit: usize) -> Vec<u8> {
    let bytes = encode(&message);
    if bytes.len() <= limit {
        return bytes;
    }
    message.additionals.clear();
    let bytes = encode(&message);
    if bytes.len() <= limit {
        return bytes;
    }
    message.metadata.truncation = true;
    message.authorities.clear();
    let all = std::mem::take(&mut message.answers);
    // As many as fit: a message of one more record is longer.
    // No record has less than 12 bytes.
    let (mut fits, mut too_many) = (0, all.len().min(limit / 12) + 1);
    while fits + 1 < too_many {
        let middle = fits.midpoint(too_many);
        message.answers = all.iter().take(middle).cloned().collect();
        if encode(&message).len() <= limit { fits = middle } else { too_many = middle }
    }
    message.answers = all.into_iter().take(fits).collect();
    encode(&message)
}

/// Longer than any limit if it cannot be encoded at all: more than 64 KiB.
fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_else(|_| vec![0; MAX_TCP_BYTES + 1])
}
