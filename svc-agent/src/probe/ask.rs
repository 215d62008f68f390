//! One question to one endpoint.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Target;
use crate::model::CheckKind;
use crate::model::text::quote;

/// A status line is shorter; nothing else is read of an answer.
const MAX_BYTES: usize = 1024;

/// Asks a target once.
///
/// # Errors
/// Why it is not healthy, for an operator.
pub async fn ask(target: &Target) -> Result<(), String> {
    let limit = Duration::from_secs(target.check.timeout_s.into());
    let asked = async {
        let stream = TcpStream::connect(target.addr).await.map_err(|error| reason(&error))?;
        match &target.check.kind {
            CheckKind::Tcp => Ok(()),
            CheckKind::Http(path) => get(stream, target.addr, path).await,
        }
    };
    match timeout(limit, asked).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(format!("no answer within {} s", target.check.timeout_s)),
    }
}

async fn get(mut stream: TcpStream, addr: SocketAddr, path: &str) -> Result<(), String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: svc-agent-health-check\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| reason(&error))?;
    let mut answer = Vec::with_capacity(MAX_BYTES);
    while !answer.contains(&b'\n') && answer.len() < MAX_BYTES {
        let mut part = [0; MAX_BYTES];
        let read = stream.read(&mut part).await.map_err(|error| reason(&error))?;
        if read == 0 {
            break;
        }
        answer.extend(part.iter().take(read));
    }
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    match status(line) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("it answered with the status {code}, expected 200 to 399")),
        None => Err(format!("it answered {}, expected HTTP", quote(line))),
    }
}

/// The code of a status line.
fn status(line: &str) -> Option<u16> {
    let mut words = line.strip_prefix("HTTP/1.")?.split(' ');
    let _minor = words.next()?;
    words.next()?.parse().ok().filter(|code| (100..1000).contains(code))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::model::HealthCheck;

    /// Answers every connection with these bytes, and ends it if told so.
    async fn server(answer: &'static [u8], ends: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 512];
                if !answer.is_empty() {
                    let _read = stream.read(&mut request).await;
                    let _written = stream.write_all(answer).await;
                }
                if !ends {
                    kept.push(stream);
                }
            }
        });
        addr
    }

    async fn asked(addr: SocketAddr, kind: CheckKind) -> Result<(), String> {
        let check = HealthCheck { kind, port: None, interval_s: 1, timeout_s: 1, healthy: 1, unhealthy: 1 };
        ask(&Target { addr, check }).await
    }

    #[tokio::test]
    async fn an_answer_is_judged_by_its_status_alone() {
        let http = || CheckKind::Http("/healthz".to_owned());
        for (answer, ends, expected) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabc"[..], false, Ok(())),
            (b"HTTP/1.0 302 Found\r\n", true, Ok(())),
            (b"HTTP/1.1 204\n", true, Ok(())),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", true, Err("status 503")),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", true, Err("status 404")),
            (b"SSH-2.0-x\r\n", true, Err("it answered `SSH-2.0-x`, expected HTTP")),
            (b"HTTP/1.1 2000 x\r\n", true, Err("expected HTTP")),
            (&[b'x'; 5000], false, Err("expected HTTP")),
            (b"HTTP/1.1 200", false, Err("no answer within 1 s")),
        ] {
            let got = asked(server(answer, ends).await, http()).await;
            match (got, expected) {
                (Ok(()), Ok(())) => {}
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
                (got, expected) => panic!("{got:?}, expected {expected:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_connection_is_enough_for_tcp() {
        let addr = server(b"", false).await;
        assert_eq!(asked(addr, CheckKind::Tcp).await, Ok(()));
        assert_eq!(asked(addr, CheckKind::Http("/".to_owned())).await, Err("no answer within 1 s".to_owned()));
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(asked(gone, CheckKind::Tcp).await, Err("connection refused".to_owned()));
    }
}
