//! What is taken over of an answer: records of the asked name and of those that it is an alias of, nothing else.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{Asking, Forwarded};

/// The longest chain of aliases that is followed.
const MAX_ALIASES: usize = 16;

/// Takes over an answer; `None` if the server could not tell and another one may.
pub fn sift(asking: &Asking, message: Message) -> Option<Forwarded> {
    let code = message.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return None;
    }
    let names = chain(asking.question.name(), &message.answers);
    let asked = asking.question.query_type();
    let belongs = |record: &Record| match record.record_type() {
        // An alias of a whole branch; the aliases that follow from it are there as well.
        RecordType::DNAME => names.iter().any(|name| record.name.zone_of(name)),
        _ => names.contains(&record.name),
    };
    // Without the question's own name in front of it, the answer is one to another question.
    let mut answers: Vec<Record> = message.answers.into_iter().filter(belongs).collect();
    for record in &mut answers {
        // As the client wrote it.
        if record.name == *asking.question.name() {
            record.name = asking.question.name().clone();
        }
    }
    // Aliases in the order in which they lead on, whatever order they came in.
    answers.sort_by_key(|record| {
        let place = names.iter().position(|name| *name == record.name).unwrap_or(0);
        (place, record.record_type() != RecordType::CNAME)
    });
    let has_answer = answers.iter().any(|record| record.record_type() == asked || asked == RecordType::ANY);
    let last = names.last().unwrap_or(asking.question.name());
    let above = |record: &Record| record.record_type() == RecordType::SOA && record.name.zone_of(last);
    let proof = |record: &Record| asking.dnssec && record.record_type() != RecordType::NS;
    let authorities = message.authorities.into_iter().filter(|record| above(record) || proof(record));
    let authorities = if has_answer && !asking.dnssec { Vec::new() } else { authorities.collect() };
    Some(Forwarded { code, answers, authorities, authentic: message.metadata.authentic_data })
}

/// The asked name and what it is an alias of, one after the other.
fn chain(name: &Name, answers: &[Record]) -> Vec<Name> {
    let mut names = vec![name.clone()];
    while names.len() <= MAX_ALIASES {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if names.last() == Some(&record.name) => Some(target.0.clone()),
            _ => None,
        });
        match next {
            Some(next) if !names.contains(&next) => names.push(next),
            _ => break,
        }
    }
    names
}
