//! The client: one question after the other.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{ANSWER_ME, Answer, BURST, ECHO, MESSAGE, ONCE, Outcome, SINK, Task};

/// Longer than anything takes; who waits this long has lost a packet.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rates are those of the middle one of slices as long as this: who else wanted the CPU for a moment is not in them.
const SLICE: Duration = Duration::from_millis(10);
/// Bytes that are written to a stream at once.
const PIECE: usize = 128 * 1024;

/// Does what each line of the standard input asks for, `TASK ADDRESS:PORT MILLISECONDS [SOURCE PORT]`, and says how it went.
///
/// # Errors
/// If a line says something else.
pub fn answer_questions() -> Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [task, to, millis, ref rest @ ..] = words[..] else {
            bail!("found `{line}`, expected TASK ADDRESS:PORT MILLISECONDS [SOURCE PORT]")
        };
        let (task, to): (Task, SocketAddr) = (task.parse()?, to.parse()?);
        let time = Duration::from_millis(millis.parse()?);
        let source = rest.first().map_or(Ok(0), |port| port.parse())?;
        let answer = match run(task, to, time, source) {
            Ok(outcome) => Answer::Done(outcome),
            Err(error) => Answer::Failed(format!("{task} to {to}: {error:#}")),
        };
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}

fn run(task: Task, to: SocketAddr, time: Duration, source: u16) -> Result<Outcome> {
    match task {
        Task::Connections => connections(to, time),
        Task::TcpRequests => tcp_requests(to, time),
        Task::UdpRequests => udp_requests(to, time, source),
        Task::Stream => stream(to, time),
        Task::Datagrams => datagrams(to, time),
    }
}

fn connections(to: SocketAddr, time: Duration) -> Result<Outcome> {
    let message = [ONCE; MESSAGE];
    let mut answer = [0; MESSAGE];
    timed(time, || {
        let mut stream = TcpStream::connect(to).context("connect")?;
        stream.write_all(&message).context("write")?;
        stream.read_exact(&mut answer).context("read")?;
        // The server closes first, so that its side waits, not the client's: ports are free again at once.
        anyhow::ensure!(stream.read(&mut answer)? == 0, "the server said more than was asked");
        Ok(1)
    })
}

fn tcp_requests(to: SocketAddr, time: Duration) -> Result<Outcome> {
    let mut message = [ECHO; MESSAGE];
    let mut stream = connect(to)?;
    timed(time, || {
        stream.write_all(&message).context("write")?;
        stream.read_exact(&mut message).context("read")?;
        Ok(1)
    })
}

fn udp_requests(to: SocketAddr, time: Duration, source: u16) -> Result<Outcome> {
    let mut message = [ANSWER_ME; MESSAGE];
    let socket = udp(to, source)?;
    timed(time, || {
        socket.send(&message).context("send")?;
        socket.recv(&mut message).context("receive")?;
        Ok(1)
    })
}

fn stream(to: SocketAddr, time: Duration) -> Result<Outcome> {
    let piece = vec![SINK; PIECE];
    let mut stream = connect(to)?;
    let outcome = timed(time, || {
        stream.write_all(&piece).context("write")?;
        Ok(PIECE as u64)
    })?;
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count).context("the server's count")?;
    let count = u64::from_le_bytes(count);
    anyhow::ensure!(count == outcome.count, "{} bytes were sent, {count} arrived", outcome.count);
    Ok(outcome)
}

fn datagrams(to: SocketAddr, time: Duration) -> Result<Outcome> {
    let silent = [0; MESSAGE];
    let mut last = [ANSWER_ME; MESSAGE];
    let socket = udp(to, 0)?;
    timed(time, || {
        for _ in 1..BURST {
            socket.send(&silent).context("send")?;
        }
        socket.send(&last).context("send")?;
        socket.recv(&mut last).context("receive")?;
        Ok(BURST)
    })
}

/// Does something until the time is over, and takes the time of each.
fn timed(time: Duration, mut once: impl FnMut() -> Result<u64>) -> Result<Outcome> {
    let mut nanos: Vec<u32> = Vec::with_capacity(100_000);
    let mut rates = Vec::new();
    let (mut count, mut slice) = (0, 0);
    let begin = Instant::now();
    let (mut before, mut slice_begin) = (begin, begin);
    while before - begin < time {
        let more = once()?;
        let now = Instant::now();
        nanos.push(u32::try_from((now - before).as_nanos()).unwrap_or(u32::MAX));
        before = now;
        (count, slice) = (count + more, slice + more);
        if now - slice_begin >= SLICE {
            rates.push(slice as f64 / (now - slice_begin).as_secs_f64());
            (slice, slice_begin) = (0, now);
        }
    }
    nanos.sort_unstable();
    let part = |share: f64| {
        let index = (nanos.len() as f64 * share) as usize;
        f64::from(nanos.get(index).copied().unwrap_or(0)) / 1000.0
    };
    rates.sort_by(f64::total_cmp);
    let rate = rates.get(rates.len() / 2).copied().unwrap_or(count as f64 / (before - begin).as_secs_f64());
    Ok(Outcome { count, rate, p50_us: part(0.5), p99_us: part(0.99) })
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn udp(to: SocketAddr, source: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, source))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    loop {
        match socket.connect(to) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done.map(|()| socket),
        }
    }
}
