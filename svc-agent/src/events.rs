//! Events of the programs: read from the ring buffer, given names, handed to whoever listens.
//!
//! The programs tell only what somebody wants to hear: [`Hub`] keeps `EVENTS_WANTED` at what its listeners ask for.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use svc_common::maps::{self, EventFlow, EventsWanted, MapType, Tuple, event_hook, event_kind, flow_flags, spec};
use svc_common::net::{Be16, proto};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::interval;

use crate::attach::maps::Maps;
use crate::control::api::{Event, EventFilter, EventKind, Protocol};
use crate::sys::mmap::MappedArray;
use crate::sys::ready;

/// So many events may wait for a slow listener; it misses what comes beyond.
const WAITING: usize = 1_024;
/// How often listeners that went away are noticed while nothing happens.
const LOOK: Duration = Duration::from_secs(1);

/// A listener.
type Listener = (EventFilter, mpsc::Sender<Arc<Event>>);

/// Hands events to those who listen.
pub struct Hub {
    wanted: MappedArray,
    listeners: Mutex<Vec<Listener>>,
}

impl Hub {
    /// Nobody listens yet, whatever an earlier agent left.
    ///
    /// # Errors
    /// If the map cannot be mapped.
    pub fn new(maps: &Maps) -> anyhow::Result<Self> {
        let wanted = MappedArray::new(maps.data(&spec::EVENTS_WANTED)?.fd(), size_of::<EventsWanted>(), 1)
            .context("cannot map `EVENTS_WANTED` into memory")?;
        let hub = Self { wanted, listeners: Mutex::new(Vec::new()) };
        hub.ask();
        Ok(hub)
    }

    /// Events from now on, until the receiver is dropped.
    pub fn listen(&self, filter: EventFilter) -> mpsc::Receiver<Arc<Event>> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push((filter, sender));
        self.ask();
        receiver
    }

    /// Whether anybody wants to hear of this.
    pub fn wants(&self, kind: EventKind) -> bool {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().any(|(filter, _)| filter.wants(kind))
    }

    /// Tells everybody who wants to hear it.
    pub fn tell(&self, event: Event) {
        let event = Arc::new(event);
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, listener) in listeners.iter().filter(|(filter, _)| filter.wants(event.kind)) {
            // One that is slow misses this; one that is gone is noticed later.
            let _missed = listener.try_send(event.clone());
        }
    }

    /// Asks the programs for what the listeners want, those that are gone left out.
    fn ask(&self) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|(_, listener)| !listener.is_closed());
        for (word, kind) in [(0, EventKind::Drop), (1, EventKind::Begin)] {
            if let Some(word) = self.wanted.word(0, word) {
                word.store(sample(&listeners, kind), Ordering::Relaxed);
            }
        }
    }
}

/// One of how many events of a kind somebody wants; zero for none.
fn sample(listeners: &[Listener], kind: EventKind) -> u32 {
    let wanting = listeners.iter().filter(|(filter, _)| filter.wants(kind));
    wanting.map(|(filter, _)| filter.sample.unwrap_or(1).max(1)).min().unwrap_or(0)
}

/// Names for numbers.
pub trait Names {
    /// A device's name.
    fn device(&self, ifindex: u32) -> Option<String>;
    /// A service port by its id.
    fn service(&self, service: u32) -> Option<crate::control::api::ServiceRef>;
    /// The service port that has this frontend.
    fn frontend(&self, addr: SocketAddr, protocol: u8) -> Option<crate::control::api::ServiceRef>;
}

/// Reads the ring buffer.
pub struct Reader {
    ring: AsyncFd<RingBuf<MapData>>,
    hub: Arc<Hub>,
}

impl Reader {
    /// Opens the ring buffer.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn new(maps: &Maps, hub: Arc<Hub>) -> anyhow::Result<Self> {
        let ring = RingBuf::try_from(maps.map(&spec::EVENTS)?).context("cannot map `EVENTS` into memory")?;
        Ok(Self { ring: ready::ring_buffer(ring)?, hub })
    }

    /// Reads until it is dropped.
    pub async fn run(mut self, names: impl Names) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => self.hub.ask(),
                ready = self.ring.readable_mut() => {
                    let Ok(mut ready) = ready else { return };
                    let ring = ready.get_inner_mut();
                    while let Some(item) = ring.next() {
                        let event = maps::Event::from_bytes(&item).and_then(|event| decode(&event, &names));
                        drop(item);
                        event.into_iter().for_each(|event| self.hub.tell(event));
                    }
                    ready.clear_ready();
                }
            }
        }
    }
}

/// A connection that the sweep removed.
pub fn timed_out<A: Copy + Into<IpAddr>>(key: &Tuple<A>, flow: &maps::Flow<A>, names: &impl Names) -> Event {
    let at = |addr: A, port: Be16| SocketAddr::new(addr.into(), port.to_host());
    let before = (at(key.src, key.sport), at(key.dst, key.dport));
    let after = (at(flow.src, flow.sport), at(flow.dst, flow.dport));
    let event = connection(EventKind::End, key.proto, flow.flags, before, after);
    Event { reason: Some("timeout".into()), service: names.service(flow.service), ..event }
}

fn decode(event: &maps::Event, names: &impl Names) -> Option<Event> {
    let v4 = event.family == 4;
    if event.kind == event_kind::DROP {
        let bytes = data(event).get(..event.captured as usize)?;
        let (number, source, destination) = tuple(v4, bytes)?;
        return Some(Event {
            time_unix_ms: now_ms(),
            kind: EventKind::Drop,
            reason: Some(event.reason().code().into()),
            hook: Some(
                match event.hook {
                    event_hook::XDP => "xdp",
                    event_hook::INGRESS => "tc-ingress",
                    _ => "tc-egress",
                }
                .into(),
            ),
            device: names.device(event.ifindex),
            protocol: protocol(number),
            source,
            destination,
            backend: None,
            snat: None,
            service: names.frontend(destination, number),
            length_bytes: Some(event.len_bytes),
        });
    }
    let flow = EventFlow::from_bytes(data(event))?;
    let [sport, dport, new_sport, new_dport] = flow.ports;
    let at = |bytes, port: Be16| SocketAddr::new(address(v4, bytes), port.to_host());
    let kind = if event.kind == event_kind::BEGIN { EventKind::Begin } else { EventKind::End };
    let before = (at(flow.src, sport), at(flow.dst, dport));
    let after = (at(flow.new_src, new_sport), at(flow.new_dst, new_dport));
    let event_of = connection(kind, flow.proto, flow.flags, before, after);
    let reason = (kind == EventKind::End).then(|| "replaced".into());
    Some(Event { reason, service: names.service(event.service), ..event_of })
}

/// What depends on the kind of event.
fn data(event: &maps::Event) -> &[u8] {
    event.bytes().get(std::mem::offset_of!(maps::Event, data)..).unwrap_or_default()
}

/// A connection by one of its directions: source and destination before and after the translation.
fn connection(
    kind: EventKind,
    number: u8,
    flags: u8,
    before: (SocketAddr, SocketAddr),
    after: (SocketAddr, SocketAddr),
) -> Event {
    let (client, vip, seen_as, backend) = if flags & flow_flags::REVERSE == 0 {
        (before.0, before.1, after.0, after.1)
    } else {
        (after.1, after.0, before.1, before.0)
    };
    Event {
        time_unix_ms: now_ms(),
        kind,
        reason: None,
        hook: None,
        device: None,
        protocol: protocol(number),
        source: client,
        destination: vip,
        backend: Some(backend),
        snat: (seen_as != client).then_some(seen_as),
        service: None,
        length_bytes: None,
    }
}

/// Protocol, source and destination of a packet from its IP header on, ports only where they are at hand.
fn tuple(v4: bool, bytes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let byte = |at: usize| bytes.get(at).copied();
    let (number, at, len, l4, first) = if v4 {
        let header = usize::from(byte(0)? & 0x0f) * 4;
        let offset = u16::from_be_bytes([byte(6)? & 0x1f, byte(7)?]);
        (byte(9)?, 12, 4, header, offset == 0)
    } else {
        (byte(6)?, 8, 16, 40, true)
    };
    let has_ports = first && matches!(number, proto::TCP | proto::UDP | proto::SCTP);
    let port = |offset: usize| {
        let at = l4 + offset;
        let port = byte(at).zip(byte(at + 1)).filter(|_| has_ports);
        port.map_or(0, |(high, low)| u16::from_be_bytes([high, low]))
    };
    let addr = |at: usize| {
        let mut addr = [0; 16];
        addr.get_mut(..len)?.copy_from_slice(bytes.get(at..at + len)?);
        Some(address(v4, addr))
    };
    Some((number, SocketAddr::new(addr(at)?, port(0)), SocketAddr::new(addr(at + len)?, port(2))))
}

fn address(v4: bool, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if v4 { [a, b, c, d].into() } else { bytes.into() }
}

fn protocol(number: u8) -> String {
    match (Protocol::from_number(number), number) {
        (Some(protocol), _) => protocol.to_string(),
        (None, proto::ICMP) => "ICMP".into(),
        (None, proto::ICMPV6) => "ICMPv6".into(),
        (None, number) => number.to_string(),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_packet_shows_its_addresses_and_ports() {
        let mut v4 = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 10, 96, 0, 1];
        v4.extend([0x9c, 0x40, 0, 80]);
        let check = |bytes: &[u8], number, source: &str, destination: &str| {
            let expected = (number, source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(tuple(bytes[0] >> 4 == 4, bytes), Some(expected));
        };
        check(&v4, 6, "192.0.2.1:40000", "10.96.0.1:80");
        v4[7] = 9;
        check(&v4, 6, "192.0.2.1:0", "10.96.0.1:0");
        (v4[7], v4[9]) = (0, 1);
        check(&v4, 1, "192.0.2.1:0", "10.96.0.1:0");
        assert_eq!(tuple(true, &v4[..15]), None, "cut short");
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        v6.extend([1; 16].into_iter().chain([2; 16]).chain([0, 53, 0, 54]));
        check(&v6, 17, "[101:101:101:101:101:101:101:101]:53", "[202:202:202:202:202:202:202:202]:54");
    }

    #[test]
    fn either_direction_shows_the_same_connection() {
        let [client, vip, node, backend] =
            ["198.51.100.1:40000", "10.96.0.1:80", "192.0.2.1:1024", "10.244.0.5:8080"].map(|at| at.parse().unwrap());
        let forward = connection(EventKind::Begin, 6, 0, (client, vip), (node, backend));
        assert_eq!((forward.source, forward.destination), (client, vip));
        assert_eq!((forward.backend, forward.snat), (Some(backend), Some(node)));
        let reverse = connection(EventKind::Begin, 6, flow_flags::REVERSE, (backend, node), (vip, client));
        assert_eq!(Event { time_unix_ms: 0, ..reverse }, Event { time_unix_ms: 0, ..forward });
    }

    #[test]
    fn the_programs_are_asked_for_the_most_that_anybody_wants() {
        let listener = |drops, flows, sample| (EventFilter { drops, flows, sample }, mpsc::channel(1).0);
        let check = |listeners: &[Listener], drops, flows| {
            assert_eq!((sample(listeners, EventKind::Drop), sample(listeners, EventKind::Begin)), (drops, flows));
        };
        check(&[], 0, 0);
        check(&[listener(false, false, None)], 1, 1);
        check(&[listener(true, false, Some(100))], 100, 0);
        check(&[listener(true, false, Some(100)), listener(false, true, Some(0))], 100, 1);
        check(&[listener(true, true, Some(100)), listener(true, false, Some(10))], 10, 100);
    }
}
