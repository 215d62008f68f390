//! From a request to its response: what is known here at once, what others know after asking them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Query, ResponseCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::{Answer, answer};
use crate::forward::{Asking, Forwarded, Forwarder};
use crate::message::{Received, Request, Transport, receive};
use crate::zone::Zone;

/// So many requests may wait for upstream servers at a time.
const MAX_WAITING: usize = 1024;
/// The longest chain of aliases within the cluster domain.
const MAX_ALIASES: usize = 8;

/// Knows who answers what.
#[derive(Debug)]
pub struct Responder {
    zone: Arc<RwLock<Zone>>,
    forwarder: Forwarder,
    waiting: Arc<Semaphore>,
    /// Counts responses, so that each begins with another of several records.
    turn: AtomicUsize,
}

/// A request that was looked at.
#[derive(Debug)]
pub enum Begun {
    /// Not a request.
    Nothing,
    /// The response.
    Response(Vec<u8>),
    /// Others have to be asked.
    Waits(Box<Waiting>),
}

/// A request that others are asked for.
#[derive(Debug)]
pub struct Waiting {
    request: Request,
    /// What is known already.
    answer: Answer,
    asking: Asking,
    _permit: OwnedSemaphorePermit,
}

impl Responder {
    /// Answers for the zone, and asks the forwarder for the rest.
    pub fn new(zone: Arc<RwLock<Zone>>, forwarder: Forwarder) -> Self {
        Self { zone, forwarder, waiting: Arc::new(Semaphore::new(MAX_WAITING)), turn: AtomicUsize::new(0) }
    }

    /// Answers what needs nobody else. Never waits.
    pub fn begin(&self, bytes: &[u8], transport: Transport) -> Begun {
        let request = match receive(bytes, transport) {
            Received::Request(request) => *request,
            Received::Refused(response) => return Begun::Response(response),
            Received::Ignored => return Begun::Nothing,
        };
        let (mut known, next) = self.known(&request.question);
        let Some(next) = next.filter(|_| request.wants_recursion() || known.answers.is_empty()) else {
            return Begun::Response(self.finish(&request, known));
        };
        let asking = Asking { question: next, dnssec: request.wants_dnssec(), unchecked: request.checks_itself() };
        if let Some(remembered) = self.forwarder.remembered(&asking) {
            add(&mut known, Some(remembered));
            return Begun::Response(self.finish(&request, known));
        }
        if !request.wants_recursion() {
            return Begun::Response(self.finish(&request, Answer::error(ResponseCode::Refused)));
        }
        match self.waiting.clone().try_acquire_owned() {
            Ok(permit) => Begun::Waits(Box::new(Waiting { request, answer: known, asking, _permit: permit })),
            Err(_) => Begun::Response(self.finish(&request, Answer::error(ResponseCode::ServFail))),
        }
    }

    /// Asks others, which may take seconds.
    pub async fn wait(&self, waiting: Waiting) -> Vec<u8> {
        let Waiting { request, mut answer, asking, _permit } = waiting;
        add(&mut answer, self.forwarder.ask(&asking).await);
        self.finish(&request, answer)
    }

    /// What the zone knows, following its aliases, and what is to be asked elsewhere.
    fn known(&self, question: &Query) -> (Answer, Option<Query>) {
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        let mut known = Answer::default();
        let mut question = question.clone();
        for _ in 0..MAX_ALIASES {
            let Some(found) = answer(&zone, &question) else { return (known, Some(question)) };
            let first = known.answers.is_empty();
            known.answers.extend(found.answers);
            known.authorities = found.authorities;
            known.additionals = found.additionals;
            known.code = found.code;
            known.authoritative = if first { found.authoritative } else { known.authoritative };
            let Some(target) = found.follow else { return (known, None) };
            question = Query::query(target, question.query_type());
        }
        // Aliases in a circle: nothing is at the end of them.
        known.code = ResponseCode::ServFail;
        (known, None)
    }

    fn finish(&self, request: &Request, answer: Answer) -> Vec<u8> {
        request.respond(answer, self.turn.fetch_add(1, Ordering::Relaxed))
    }
}

/// Completes an answer with what others said.
fn add(answer: &mut Answer, found: Option<Forwarded>) {
    let Some(found) = found else {
        answer.code = ResponseCode::ServFail;
        return;
    };
    answer.code = found.code;
    answer.authentic = found.authentic && answer.answers.is_empty();
    answer.answers.extend(found.answers);
    answer.authorities = found.authorities;
}
