//! A pod's server for demo and tests: HTTP/1.1, and a TCP and a UDP service that answer each line or datagram.
//!
//! `GET /` answers who it is and which client it saw; `GET /download?bytes=N[&rate=BYTES_PER_SECOND]` streams a pattern
//! that the client can verify. Unless told
//! otherwise, it ends when its standard input does, so that it never outlives who started it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, State};
use axum::routing::get;
use clap::Parser;
use svc_tests::answer::{Answer, pattern};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Bytes of one piece of a download.
const PIECE: u64 = 16 * 1024;

/// A pod's server for demo and tests.
#[derive(Parser)]
struct Args {
    /// What to call itself
    #[arg(long, default_value = "pod")]
    name: String,
    /// Address to listen on; all of both families unless given
    #[arg(long, default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    listen: IpAddr,
    /// Port of the HTTP server
    #[arg(long, default_value_t = 8080)]
    http: u16,
    /// Port of the TCP and the UDP service
    #[arg(long, default_value_t = 7000)]
    echo: u16,
    /// Stay when the standard input ends
    #[arg(long)]
    stay: bool,
    /// Print the first so many bytes of a download and end
    #[arg(long, value_name = "BYTES")]
    pattern: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(bytes) = args.pattern {
        return print_pattern(bytes);
    }
    let http = TcpListener::bind((args.listen, args.http)).await.context("cannot listen for HTTP")?;
    let tcp = TcpListener::bind((args.listen, args.echo)).await.context("cannot listen for TCP")?;
    let udp = UdpSocket::bind((args.listen, args.echo)).await.context("cannot listen for UDP")?;
    if !args.stay {
        end_with_parent();
    }
    println!("ready");
    let routes = Router::new().route("/", get(hello)).route("/download", get(download)).with_state(args.name.clone());
    let http = axum::serve(http, routes.into_make_service_with_connect_info::<SocketAddr>());
    tokio::select! {
        result = http => result.context("HTTP"),
        result = serve_tcp(tcp, &args.name) => result.context("TCP"),
        result = serve_udp(udp, &args.name) => result.context("UDP"),
    }
}

async fn hello(State(name): State<String>, ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    format!("{}\n", answer(&name, client, ""))
}

#[derive(serde::Deserialize)]
struct Wanted {
    bytes: u64,
    rate: Option<u64>,
}

async fn download(Query(wanted): Query<Wanted>) -> Body {
    let pieces = futures::stream::unfold(0, move |offset| async move {
        let end = wanted.bytes.min(offset + PIECE);
        if offset == end {
            return None;
        }
        if let Some(rate) = wanted.rate {
            tokio::time::sleep(Duration::from_secs_f64((end - offset) as f64 / rate.max(1) as f64)).await;
        }
        let piece: Vec<u8> = (offset..end).map(pattern).collect();
        Some((Ok::<_, std::convert::Infallible>(piece), end))
    });
    Body::from_stream(pieces)
}

async fn serve_tcp(listener: TcpListener, name: &str) -> Result<()> {
    loop {
        let (stream, client) = listener.accept().await?;
        let name = name.to_owned();
        tokio::spawn(async move {
            if let Err(error) = answer_lines(stream, client, &name).await {
                eprintln!("svc-testpod: {client}: {error}");
            }
        });
    }
}

async fn answer_lines(mut stream: TcpStream, client: SocketAddr, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        write.write_all(format!("{}\n", answer(name, client, &line)).as_bytes()).await?;
    }
    Ok(())
}

async fn serve_udp(socket: UdpSocket, name: &str) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error about an earlier answer comes out here: it is not the end of the service.
        let Ok((len, client)) = socket.recv_from(&mut buffer).await else { continue };
        let text = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default());
        let _ = socket.send_to(format!("{}\n", answer(name, client, text.trim_end())).as_bytes(), client).await;
    }
}

fn answer(name: &str, client: SocketAddr, text: &str) -> Answer {
    // A socket of both families shows IPv4 clients as mapped addresses.
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    Answer { pod: name.to_owned(), client, text: text.to_owned() }
}

/// A thread of its own, because a read of standard input cannot be cancelled.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
}

fn print_pattern(bytes: u64) -> Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let mut offset = 0;
    while offset < bytes {
        let end = bytes.min(offset + PIECE);
        out.write_all(&(offset..end).map(pattern).collect::<Vec<u8>>())?;
        offset = end;
    }
    Ok(())
}
