//! Clients in namespaces: one question, a connection that is asked again and again, a download that is verified.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::sockopt::{ReceiveTimeout, ReuseAddr, SendTimeout};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::answer::{Answer, pattern};
use crate::netns::Netns;

/// How long a client waits before it calls it a failure.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// A transport protocol, with the way to ask one question over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// One connection each time.
    Tcp,
    /// One socket each time.
    Udp,
}

impl Transport {
    /// Both, for what is to be tried with both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Asks from a fresh source port.
    ///
    /// # Errors
    /// If there is no answer, or one from elsewhere than was asked.
    pub fn ask(self, ns: &Netns, to: SocketAddr, text: &str) -> Result<Answer> {
        match self {
            Self::Tcp => TcpClient::connect(ns, to)?.ask(text),
            Self::Udp => UdpClient::open(ns, to.is_ipv4(), 0)?.ask(to, text),
        }
    }
}

/// A TCP connection to the service that answers lines.
#[derive(Debug)]
pub struct TcpClient {
    stream: BufReader<TcpStream>,
}

impl TcpClient {
    /// Connects from inside a namespace.
    ///
    /// # Errors
    /// If nobody answers in time.
    pub fn connect(ns: &Netns, to: SocketAddr) -> Result<Self> {
        connect(ns, to).map(Self::from)
    }

    /// Says a line and reads the answer.
    ///
    /// # Errors
    /// If there is none, or not to this line.
    pub fn ask(&mut self, text: &str) -> Result<Answer> {
        let peer = self.stream.get_ref().peer_addr()?;
        let mut line = String::new();
        let exchange = self.stream.get_mut().write_all(format!("{text}\n").as_bytes());
        exchange
            .and_then(|()| self.stream.read_line(&mut line))
            .with_context(|| format!("no answer of {peer} over TCP"))?;
        checked(&line, text).with_context(|| format!("answer of {peer} over TCP"))
    }

    /// Its own address.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().local_addr()?)
    }
}

impl From<TcpStream> for TcpClient {
    fn from(stream: TcpStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }
}

/// A UDP socket, not connected, so that it sees who really answers.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
}

impl UdpClient {
    /// Opens a socket inside a namespace, at a port or at any.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn open(ns: &Netns, v4: bool, port: u16) -> Result<Self> {
        let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let open = || while_in_use(|| UdpSocket::bind((any, port)));
        let socket = ns.run(open).flatten().with_context(|| format!("cannot open a UDP socket at port {port}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Sends a datagram and reads the answer, which must come from where the question went (B10).
    ///
    /// # Errors
    /// If there is none, or from elsewhere, or not to this question.
    pub fn ask(&mut self, to: SocketAddr, text: &str) -> Result<Answer> {
        self.socket.send_to(text.as_bytes(), to)?;
        let mut buffer = vec![0; 65_536];
        loop {
            let received = uninterrupted(|| self.socket.recv_from(&mut buffer));
            let (len, from) = received.with_context(|| format!("no answer of {to} over UDP"))?;
            if from != to {
                bail!("asked {to} over UDP, but {from} answered");
            }
            let line = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned();
            match checked(&line, text) {
                // A late answer to an earlier question of this socket.
                Err(_) if line.contains(" saw ") => {}
                result => return result,
            }
        }
    }

    /// Reads a datagram, which must come from there.
    ///
    /// # Errors
    /// If there is none, or from elsewhere.
    pub fn hear(&mut self, from: SocketAddr) -> Result<String> {
        let mut buffer = vec![0; 65_536];
        let received = uninterrupted(|| self.socket.recv_from(&mut buffer));
        let (len, sender) = received.with_context(|| format!("nothing came from {from} over UDP"))?;
        if sender != from {
            bail!("expected a datagram of {from}, but {sender} sent one");
        }
        Ok(String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned())
    }

    /// Waits a short while for an answer that would be wrong.
    ///
    /// # Errors
    /// If one comes.
    pub fn expect_silence(&self, wait: Duration) -> Result<()> {
        self.socket.set_read_timeout(Some(wait))?;
        let mut buffer = vec![0; 65_536];
        let heard = uninterrupted(|| self.socket.recv_from(&mut buffer));
        self.socket.set_read_timeout(Some(PATIENCE))?;
        match heard {
            Ok((len, from)) => bail!("unexpected answer of {len} bytes from {from}"),
            Err(_) => Ok(()),
        }
    }

    /// Its port.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn port(&self) -> Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }
}

/// Asks the HTTP server who it is, over a connection of its own.
///
/// # Errors
/// If there is no answer, or not a good one.
pub fn http(ns: &Netns, to: SocketAddr) -> Result<Answer> {
    let mut body = Vec::new();
    request(connect(ns, to)?, "/", |piece| {
        body.extend_from_slice(piece);
        Ok(())
    })?;
    String::from_utf8_lossy(&body).parse::<Answer>().map_err(anyhow::Error::msg)
}

/// Downloads and verifies each byte; returns how many came. `rate` is in bytes per second.
///
/// # Errors
/// If the connection breaks, bytes are wrong, or too few come.
pub fn download(stream: TcpStream, bytes: u64, rate: Option<u64>) -> Result<u64> {
    let mut offset = 0u64;
    let rate = rate.map(|rate| format!("&rate={rate}")).unwrap_or_default();
    request(stream, &format!("/download?bytes={bytes}{rate}"), |piece| {
        for &byte in piece {
            if byte != pattern(offset) {
                bail!("byte {offset} of the download is wrong");
            }
            offset += 1;
        }
        Ok(())
    })?;
    if offset != bytes {
        bail!("the download ended after {offset} of {bytes} bytes");
    }
    Ok(offset)
}

/// Opens a TCP connection from inside a namespace.
///
/// # Errors
/// If nobody answers in time.
pub fn connect(ns: &Netns, to: SocketAddr) -> Result<TcpStream> {
    let stream = ns
        .run(|| TcpStream::connect_timeout(&to, PATIENCE))
        .flatten()
        .with_context(|| format!("cannot connect to {to} from {}", ns.name()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The same, from a source port that the caller chooses.
///
/// # Errors
/// If the port is taken or nobody answers.
pub fn connect_from(ns: &Netns, port: u16, to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let open = || -> io::Result<TcpStream> {
        let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        setsockopt(&socket, SendTimeout, &TimeVal::milliseconds(3000))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(3000))?;
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))?;
        socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
        Ok(TcpStream::from(socket))
    };
    ns.run(|| while_in_use(|| uninterrupted(open)))
        .flatten()
        .with_context(|| format!("cannot connect to {to} from port {port} of {}", ns.name()))
}

/// Tries again for a moment if a port is taken: a process that another test is just starting holds copies of all open
/// sockets of this one, also of those that are closed meanwhile, until it runs its program.
fn while_in_use<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Sends one request in HTTP/1.0, which is answered without chunks, and hands on the body as it comes.
fn request(mut stream: TcpStream, path: &str, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let peer = stream.peer_addr()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status).with_context(|| format!("no answer of {peer} over HTTP"))?;
    if status.split(' ').nth(1) != Some("200") {
        bail!("{peer} answered `{}`", status.trim_end());
    }
    let mut header = String::new();
    while reader.read_line(&mut header)? > 0 && !header.trim_end().is_empty() {
        header.clear();
    }
    let mut buffer = [0; 16 * 1024];
    loop {
        let len =
            uninterrupted(|| reader.read(&mut buffer)).with_context(|| format!("the answer of {peer} broke off"))?;
        if len == 0 {
            return Ok(());
        }
        take(buffer.get(..len).unwrap_or_default())?;
    }
}

/// Tries again what a signal interrupted: sockets with time-outs return then, whoever the signal is meant for.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn checked(line: &str, text: &str) -> Result<Answer> {
    let answer: Answer = line.parse().map_err(anyhow::Error::msg)?;
    if answer.text != text {
        bail!("said `{text}`, was answered `{}`", line.trim_end());
    }
    Ok(answer)
}
