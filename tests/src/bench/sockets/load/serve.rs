//! The server: one connection after the other, and datagrams, on one thread each.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context, Result};

use super::{ANSWER_ME, ECHO, MESSAGE, PORT, SINK};
use crate::bench::sockets::stage::SERVER;

/// Bytes that are read from a stream at once.
const PIECE: usize = 256 * 1024;

/// Says `ready` and serves until the standard input ends.
///
/// # Errors
/// If the port is taken.
pub fn serve() -> Result<()> {
    let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot listen for TCP")?;
    for address in SERVER {
        // A socket for each: of one for all, every answer would come from the first address.
        let udp = UdpSocket::bind((address, PORT)).with_context(|| format!("cannot listen for UDP at {address}"))?;
        std::thread::spawn(move || serve_udp(&udp));
    }
    println!("ready");
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        for stream in tcp.incoming().flatten() {
            // A client that gave up is none of the server's business.
            let _ = serve_tcp(stream, &mut piece);
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn serve_tcp(mut stream: TcpStream, piece: &mut [u8]) -> io::Result<()> {
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message)?;
    match message[0] {
        ECHO => {
            stream.set_nodelay(true)?;
            loop {
                stream.write_all(&message)?;
                stream.read_exact(&mut message)?;
            }
        }
        SINK => {
            let mut bytes = MESSAGE as u64;
            loop {
                match stream.read(piece)? {
                    0 => return stream.write_all(&bytes.to_le_bytes()),
                    more => bytes += more as u64,
                }
            }
        }
        // It ends first, as servers of HTTP/1.0 do.
        _ => stream.write_all(&message),
    }
}

fn serve_udp(socket: &UdpSocket) {
    let mut message = [0; MESSAGE];
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut message)
            && message[0] == ANSWER_ME
        {
            let _ = socket.send_to(&message[..len], from);
        }
    }
}
