//! What may stand between an agent and its API server: passes bytes on, or does what broken ones do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use svc_tests::netns::Netns;
use svc_tests::topology::Host;

/// What it does to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Honest,
    /// Answers with a page, without TLS.
    Html,
    /// Changes what the server says.
    Noise,
    /// Closes after so many bytes of the server.
    Cut(usize),
    /// Closes at once.
    Close,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// All that are open.
    open: Vec<TcpStream>,
}

/// A proxy; its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Listens on a host, and leads to a server there.
    pub fn start(host: &Host, address: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let listener = host.ns.run(|| TcpListener::bind(address)).flatten()?;
        let state = Arc::new(Mutex::new(State { mode: Mode::Honest, open: Vec::new() }));
        let (shared, ns) = (state.clone(), Netns::open(host.ns.name()).map_err(io::Error::other)?);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _lost = serve(&shared, &ns, client, server);
            }
        });
        Ok(Self { state })
    }

    /// Changes what it does; connections of before end.
    pub fn set(&self, mode: Mode) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.mode = mode;
        for stream in state.open.drain(..) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(state: &Mutex<State>, ns: &Netns, mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    // In one step: else a change in between would leave it as it was meant before.
    let mode = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.push(client.try_clone()?);
        state.mode
    };
    match mode {
        Mode::Close => return Ok(()),
        Mode::Html => return client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n<html>sorry</html>"),
        Mode::Honest | Mode::Noise | Mode::Cut(_) => {}
    }
    let mut upstream = ns.run(|| TcpStream::connect(server)).flatten()?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Write)));
    std::thread::spawn(move || -> io::Result<()> {
        let (mut buffer, mut passed) = (vec![0; 16_384], 0);
        loop {
            let len = upstream.read(&mut buffer)?;
            let end = matches!(mode, Mode::Cut(limit) if passed + len > limit);
            if len == 0 || end {
                return client.shutdown(Shutdown::Both);
            }
            passed += len;
            if mode == Mode::Noise {
                // Beyond the greeting, so that it is the records that are wrong.
                buffer[..len]
                    .iter_mut()
                    .skip(if passed == len { 2_000 } else { 0 })
                    .step_by(97)
                    .for_each(|byte| *byte ^= 0x55);
            }
            client.write_all(&buffer[..len])?;
        }
    });
    Ok(())
}
