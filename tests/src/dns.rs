//! A name server for tests: over UDP and TCP, in both families, with answers that fit a datagram and answers that do not.
//!
//! `small.test` has one TXT record, `large.test` so many that a datagram of 512 bytes says only that they were cut off, and the
//! client asks again over TCP (RFC 1035, 4.2.1).

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// What every TXT record says.
pub const TEXT: &str = "the quick brown fox jumps over the lazy dog and does not stop there";
/// TXT records of `large.test`.
pub const RECORDS: usize = 40;
/// The longest answer without EDNS.
const DATAGRAM: usize = 512;
const HEADER: usize = 12;

/// Starts a server on both protocols in a namespace. It ends with the process.
///
/// # Errors
/// If the port is taken.
pub fn serve(ns: &Netns, port: u16) -> Result<()> {
    let open = || {
        Ok::<_, io::Error>((
            UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?,
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?,
        ))
    };
    let (udp, tcp) = ns.run(open).flatten().with_context(|| format!("cannot listen on port {port}"))?;
    thread::spawn(move || {
        let mut buffer = [0; 1_500];
        while let Ok((len, client)) = udp.recv_from(&mut buffer) {
            if let Some(answer) = buffer.get(..len).and_then(|question| answer(question, DATAGRAM)) {
                let _unreachable = udp.send_to(&answer, client);
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming().map_while(Result::ok) {
            let _ended = converse(stream);
        }
    });
    Ok(())
}

/// Messages over TCP have their length before them.
fn converse(mut stream: std::net::TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut question)?;
        let Some(answer) = answer(&question, usize::from(u16::MAX)) else { return Ok(()) };
        let len = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&len.to_be_bytes(), answer.as_slice()].concat())?;
    }
}

/// The answer to a question of one name; none to anything else.
fn answer(question: &[u8], limit: usize) -> Option<Vec<u8>> {
    let header = question.get(..HEADER)?;
    let mut end = HEADER;
    // Labels, each with its length, then type and class.
    while *question.get(end)? != 0 {
        end += 1 + usize::from(*question.get(end)?);
    }
    let asked = question.get(HEADER..end + 5)?;
    let count = if asked.get(1..6)? == b"large" { RECORDS } else { 1 };
    let mut answer = header.get(..2)?.to_vec();
    // A response with authority; recursion as desired.
    answer.extend([0x84 | header.get(2)? & 1, 0, 0, 1, 0, count as u8, 0, 0, 0, 0]);
    answer.extend(asked);
    for _ in 0..count {
        // The name is that of the question; TXT, IN, no caching.
        answer.extend([0xc0, HEADER as u8, 0, 16, 0, 1, 0, 0, 0, 0, 0, TEXT.len() as u8 + 1, TEXT.len() as u8]);
        answer.extend(TEXT.as_bytes());
    }
    if answer.len() > limit {
        answer.truncate(HEADER + asked.len());
        // Cut off, without a record.
        *answer.get_mut(2)? |= 2;
        *answer.get_mut(7)? = 0;
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_off() {
        let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05large\x04test\x00\x00\x10\x00\x01";
        let short = answer(question, DATAGRAM).unwrap();
        assert_eq!((short[2] & 2, short[7]), (2, 0));
        let long = answer(question, 65_535).unwrap();
        assert_eq!((long[2] & 2, usize::from(long[7])), (0, RECORDS));
        assert!(long.len() > RECORDS * TEXT.len());
        assert_eq!(answer(&question[..20], DATAGRAM), None);
    }
}
