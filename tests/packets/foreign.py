#!/usr/bin/env python3
"""Writes `foreign.txt`: frames that scapy makes, and what scapy says they have to become.

By hand, where scapy is installed: `python3 tests/packets/foreign.py > tests/packets/foreign.txt`. Tests read the text alone.
A line is: name, what becomes of the frame, the frame, and, if it is translated, the frame that comes out, with checksums by scapy.
"""
import copy, logging

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import *
from scapy.contrib.geneve import GENEVE
from scapy.contrib.igmp import IGMP
from scapy.layers.sctp import *

ETH = dict(src="02:00:00:00:00:20", dst="02:00:00:00:00:10")
V4 = dict(client="198.51.100.7", vip="10.96.0.10", backend="10.244.1.5", router="203.0.113.1", ip=IP, more="198.51.100.9")
V6 = dict(client="2001:db8:7::7", vip="fd00:96::10", backend="fd00:244:1::5", router="2001:db8:9::1", ip=IPv6, more="2001:db8:7::9")
FIELDS = ("chksum", "len", "plen")


def again(packet):
    """The packet with every length and checksum made anew, but those of what it quotes."""
    layer = packet
    while not isinstance(layer, NoPayload):
        if isinstance(layer, (IPerror, IPerror6)):
            break
        for field in ("chksum", "cksum"):
            if field in layer.fields:
                delattr(layer, field)
        layer = layer.payload
    return packet.__class__(raw(packet))


def line(name, fate, before, after=None):
    print(f"{name}|{fate}|{raw(before).hex()}" + (f"|{raw(after).hex()}" if after is not None else ""))


def translated(name, packet):
    """A packet to the VIP's port 80 becomes one to the backend's port 8080."""
    before = Ether(raw(packet))
    after = copy.deepcopy(before)
    family = V4 if IP in after else V6
    after[family["ip"]].dst = family["backend"]
    for transport in (TCP, UDP, SCTP):
        if transport in after:
            after[transport].dport = 8080
            break
    line(name, "deliver", before, again(after))


def unpacked(name, packet, outer):
    """A packet to the VIP that another node has put into one to the backend."""
    inner = Ether(raw(packet))
    family = V4 if IP in inner else V6
    after = copy.deepcopy(inner)
    after[family["ip"]].dst = family["backend"]
    for transport in (TCP, UDP, SCTP):
        if transport in after:
            after[transport].dport = 8080
            break
    node = "192.0.2.77" if family is V4 else "2001:db8::77"
    before = Ether(**ETH) / family["ip"](src=node, dst=family["backend"]) / outer(inner.payload)
    line(name, "unpack", before, again(after))


def untouched(name, packet):
    line(name, "pass", packet)


def to_vip(family, sport=40000, **fields):
    return Ether(**ETH) / family["ip"](src=family["client"], dst=family["vip"], **fields)


TCP_OPTIONS = {
    "mss": [("MSS", 1460)],
    "linux-syn": [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (123456, 0)), ("NOP", None), ("WScale", 7)],
    "windows-syn": [("MSS", 1440), ("NOP", None), ("WScale", 8), ("NOP", None), ("NOP", None), ("SAckOK", b"")],
    "timestamps": [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))],
    "sack-3": [("NOP", None), ("NOP", None), ("SAck", (1, 2, 3, 4, 5, 6))],
    "fast-open": [("MSS", 1460), ("TFO", (0x01020304, 0x05060708))],
    "end-of-list": [("EOL", None)],
    "unknown-kind": [(254, b"\x12\x34\x56\x78")],
    "forty-bytes": [("NOP", None)] * 40,
}
for n, family in ((4, V4), (6, V6)):
    port = 41000
    for name, options in TCP_OPTIONS.items():
        for flags in ("S", "A", "PA", "SEC", "FA", "UA"):
            port += 1
            tcp = TCP(sport=port, dport=80, flags=flags, seq=port * 7919, ack=port * 10007, options=options, urgptr=3 if "U" in flags else 0)
            translated(f"tcp{n}-{name}-{flags}", to_vip(family) / tcp / (b"x" * (port % 5)))
    for size in (0, 1, 2, 3, 7, 64, 512, 1399):
        port += 1
        translated(f"udp{n}-{size}", to_vip(family) / UDP(sport=port, dport=80) / bytes(range(256)).__mul__(6)[:size])
        translated(f"sctp{n}-data-{size}", to_vip(family) / SCTP(sport=port, dport=80, tag=port) / SCTPChunkData(data=bytes(size)))
    translated(f"sctp{n}-init", to_vip(family) / SCTP(sport=500, dport=80) / SCTPChunkInit(init_tag=7, a_rwnd=9000))
    translated(f"sctp{n}-cookie", to_vip(family) / SCTP(sport=501, dport=80, tag=3) / SCTPChunkCookieEcho(cookie=b"c" * 60))
    translated(f"sctp{n}-abort", to_vip(family) / SCTP(sport=502, dport=80, tag=3) / SCTPChunkAbort())
    # Answers that nobody asked for, other protocols, and what is for others.
    ip = lambda **more: Ether(**ETH) / family["ip"](src=family["client"], dst=family["more"], **more)
    for proto in (TCP, UDP):
        untouched(f"{proto.__name__.lower()}{n}-for-another", ip() / proto(sport=80, dport=40000))
    untouched(f"gre{n}", ip() / GRE() / family["ip"](src=family["client"], dst=family["vip"]) / TCP(dport=80))
    untouched(f"esp{n}", ip(**({"proto": 50} if n == 4 else {"nh": 50})) / (b"\x00" * 32))

tcp = lambda port, **fields: TCP(sport=port, dport=80, flags="A", **fields)
for n, (name, options) in enumerate({
    "record-route": [IPOption_RR(length=23, pointer=4, routers=["0.0.0.0"] * 5)],
    "router-alert": [IPOption_Router_Alert()],
    "timestamp": [IPOption(b"\x44\x0c\x05\x00" + bytes(8))],
    "no-operation": [IPOption_NOP()] * 4,
    "forty-bytes": [IPOption_NOP()] * 40,
    "security": [IPOption(b"\x82\x0b" + bytes(9))],
}.items()):
    translated(f"options-{name}-tcp", to_vip(V4, options=options) / tcp(45000 + n) / b"data")
    translated(f"options-{name}-udp", to_vip(V4, options=options) / UDP(sport=45000 + n, dport=80) / b"data")
for n, tos in enumerate((0, 3, 0xB8, 0xFF)):
    translated(f"tos-{tos}", to_vip(V4, tos=tos, id=0xFFFF, flags="DF") / tcp(45100 + n))
    translated(f"class-{tos}", to_vip(V6, tc=tos, fl=0xFFFFF) / tcp(45100 + n))
# It stays without.
line("udp4-no-checksum", "deliver", to_vip(V4) / UDP(sport=45200, dport=80, chksum=0) / b"data",
     Ether(**ETH) / IP(src=V4["client"], dst=V4["backend"]) / UDP(sport=45200, dport=8080, chksum=0) / b"data")

CHAINS = {
    "hop-by-hop": lambda: IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
    "router-alert": lambda: IPv6ExtHdrHopByHop(options=[RouterAlert()]),
    # Not with a home address: scapy counts it in the checksum of what it makes, but not of what it has taken apart.
    "destination": None,
    "three": lambda: IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt(),
    "atomic-fragment": lambda: IPv6ExtHdrFragment(id=7),
    "fragment-behind-destination": lambda: IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(id=8),
    "routed-here": lambda: IPv6ExtHdrRouting(addresses=[], segleft=0),
}
for n, (name, chain) in enumerate(CHAINS.items()):
    if chain is None:
        continue
    translated(f"chain-{name}-tcp", to_vip(V6) / chain() / tcp(46000 + n) / b"data")
    translated(f"chain-{name}-udp", to_vip(V6) / chain() / UDP(sport=46000 + n, dport=80) / b"data")

# All pieces of a datagram, in order: those behind the first get another address alone.
for n, family in ((4, V4), (6, V6)):
    for size in (1400, 520, 64):
        whole = to_vip(family, **({"id": size} if n == 4 else {})) / UDP(sport=47000 + size, dport=80) / (b"0123456789" * 200)
        other = Ether(raw(whole))
        other[family["ip"]].dst, other[UDP].dport = family["backend"], 8080
        other = again(other)
        cut = (lambda packet: fragment(packet, fragsize=size // 8 * 8)) if n == 4 else (
            lambda packet: fragment6(Ether(**ETH) / packet[IPv6].__class__(src=packet[IPv6].src, dst=packet[IPv6].dst) / IPv6ExtHdrFragment(id=size) / packet[UDP], size + 100))
        for at, (before, after) in enumerate(zip(cut(whole), cut(other))):
            line(f"pieces{n}-{size}-{at}", "deliver", before, after)

# Errors about answers, from a router; of no connection of this node's, so that the hash finds the backend.
for n, family, kinds in ((4, V4, ((3, 0), (3, 1), (3, 4), (11, 0), (11, 1), (12, 0))), (6, V6, (1, 2, 3, 4))):
    for at, kind in enumerate(kinds):
        for full in (True, False):
            answer = family["ip"](src=family["vip"], dst=family["client"]) / UDP(sport=80, dport=48000) / b"answer"
            sent = family["ip"](src=family["backend"], dst=family["client"]) / UDP(sport=8080, dport=48000) / b"answer"
            least = 28 if n == 4 else 48
            quote, inner = [raw(packet)[: None if full else least] for packet in (answer, sent)]
            error = (lambda: ICMP(type=kind[0], code=kind[1], nexthopmtu=1300 if kind == (3, 4) else 0)) if n == 4 else (
                lambda: {1: ICMPv6DestUnreach(code=4), 2: ICMPv6PacketTooBig(mtu=1300), 3: ICMPv6TimeExceeded(), 4: ICMPv6ParamProblem(ptr=40)}[kind])
            made = lambda dst, quoted: Ether(**ETH) / family["ip"](src=family["router"], dst=dst) / error() / Raw(quoted)
            line(f"error{n}-{at}-{full}", "deliver", made(family["vip"], quote), made(family["backend"], inner))

# What another node has put into IP and into Geneve, with and without UDP's checksum.
OUTERS = {
    "ip": lambda packet: packet,
    "geneve": lambda packet: UDP(sport=54321, dport=6081, chksum=0) / GENEVE(proto=0x0800 if IP in packet else 0x86DD) / packet,
    "geneve-with-checksum": lambda packet: UDP(sport=54321, dport=6081) / GENEVE(proto=0x0800 if IP in packet else 0x86DD) / packet,
}
for n, family in ((4, V4), (6, V6)):
    for at, (name, outer) in enumerate(OUTERS.items()):
        unpacked(f"in-{name}-{n}-tcp", to_vip(family) / TCP(sport=50000 + at, dport=80, flags="S", seq=1) / b"data", outer)
        unpacked(f"in-{name}-{n}-udp", to_vip(family) / UDP(sport=50000 + at, dport=80) / b"datagram", outer)
        unpacked(f"in-{name}-{n}-sctp", to_vip(family) / SCTP(sport=50000 + at, dport=80, tag=7) / SCTPChunkData(data=b"chunk"), outer)

# What is not ours at all.
ether = lambda **more: Ether(**{**ETH, **more})
untouched("arp-request", ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.96.0.10"))
untouched("arp-reply", ether() / ARP(op=2, psrc="10.96.0.10", pdst="192.0.2.20"))
untouched("vlan", ether() / Dot1Q(vlan=7) / IP(src=V4["client"], dst=V4["vip"]) / TCP(dport=80))
untouched("vlan-in-vlan", ether(type=0x88A8) / Dot1Q(vlan=7) / Dot1Q(vlan=8) / IP(src=V4["client"], dst=V4["vip"]) / TCP(dport=80))
untouched("spanning-tree", Dot3(dst="01:80:c2:00:00:00", src=ETH["src"]) / LLC() / STP())
untouched("mpls", ether(type=0x8847) / Raw(b"\x00\x01\x01\x40" + raw(IP(src=V4["client"], dst=V4["vip"]) / TCP(dport=80))))
untouched("pppoe", ether() / PPPoE(sessionid=1) / PPP() / IP(src=V4["client"], dst=V4["vip"]) / TCP(dport=80))
untouched("igmp", ether(dst="01:00:5e:00:00:16") / IP(src=V4["client"], dst="224.0.0.22", ttl=1, options=[IPOption_Router_Alert()]) / IGMP())
untouched("dhcp", ether(dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP() / DHCP(options=[("message-type", "discover"), "end"]))
untouched("neighbour-solicitation", ether(dst="33:33:ff:00:00:10") / IPv6(src="fe80::1", dst="ff02::1:ff00:10", hlim=255) / ICMPv6ND_NS(tgt="fd00:96::10"))
untouched("router-advertisement", ether(dst="33:33:00:00:00:01") / IPv6(src="fe80::1", dst="ff02::1", hlim=255) / ICMPv6ND_RA())
untouched("multicast-listeners", ether(dst="33:33:00:00:00:16") / IPv6(src="fe80::1", dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2())
untouched("still-to-be-routed", to_vip(V6) / IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=1) / tcp(49000))
# What nobody should send.
untouched("header-of-16-bytes", to_vip(V4, ihl=4) / tcp(49001))
untouched("longer-than-the-frame", to_vip(V4, len=1500) / tcp(49002))
untouched("shorter-than-its-header", to_vip(V4, len=19) / tcp(49003))
untouched("no-room-for-ports", to_vip(V4, len=22) / tcp(49004))
untouched("version-6-in-4", to_vip(V4, version=6) / tcp(49005))
untouched("version-4-in-6", to_vip(V6, version=4) / tcp(49006))
untouched("payload-longer-than-the-frame", to_vip(V6, plen=900) / tcp(49007))
