//! Why a packet was dropped or deliberately passed: one value, one counter, one row in `docs/operations.md`.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $index:literal, $code:literal;)*) => {
        /// Why a packet was dropped or passed. The number is the index of its counter: append, never renumber.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])* $name = $index,)*
        }

        impl Reason {
            /// Every reason, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name in metrics, events and the command line.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// What happened, for people.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*),)*
                }
            }
        }
    };
}

reasons! {
    /// Passed: a header is cut short or its length fields contradict each other (B01). Dropped, should that show only
    /// while the packet is translated.
    Malformed = 0, "malformed";
    /// Passed: a fragment of which the first one said that it is not for us, or that is only on its way through this node.
    Fragment = 1, "fragment";
    /// Passed: IPv6 extension headers that are not followed: too many, or another destination lies ahead (B47).
    ExtensionHeader = 2, "extension_header";
    /// Passed: a transport protocol other than TCP and UDP, and SCTP in fragments or behind IPv6 extension headers (B06).
    UnknownProtocol = 3, "unknown_protocol";
    /// Passed: the TTL or hop limit would reach zero; the stack answers (B08).
    TtlExceeded = 4, "ttl_exceeded";
    /// Dropped: the source of the connection is translated, and there is no route to the other side any more.
    NoNextHop = 5, "no_next_hop";
    /// Passed at XDP: the checksum is only the pseudo-header's sum; tc handles the packet (B05).
    PartialChecksum = 6, "partial_checksum";
    /// Refused: the service has no endpoint anywhere (B64).
    NoEndpoint = 7, "no_endpoint";
    /// Dropped: the policy is Local and this node has no endpoint, though others have (B55).
    NoLocalEndpoint = 8, "no_local_endpoint";
    /// Dropped: a slot names a backend that is not programmed, or another node sent a packet for a backend that is gone.
    BackendGone = 9, "backend_gone";
    /// Dropped: no source port was free after the bounded search (B29).
    NoSourcePort = 10, "no_source_port";
    /// Dropped: the device towards the backend has no address of this family to use as the source.
    NoSourceAddress = 11, "no_source_address";
    /// Dropped: a flow could not be recorded.
    FlowTableFull = 12, "flow_table_full";
    /// Counted only: the established table is full; the connection stays in the half-open table (B23).
    PromotionRefused = 13, "promotion_refused";
    /// Counted only: a flow whose partner was missing got it back (B21).
    PartnerRestored = 14, "partner_restored";
    /// Dropped: the source of a new connection has to be translated, but the way to the backend leads through a device
    /// where no program of ours would see the answer.
    UnmanagedDevice = 15, "unmanaged_device";
    /// Dropped: a loopback address came in from a wire (CVE-2020-8558).
    LoopbackFromWire = 16, "loopback_from_wire";
    /// Our programs would forward the packet, but it does not fit through the next hop's device (B41): translated and left
    /// to the stack, or dropped and its sender told.
    TooBig = 17, "too_big";
    /// Refused: the address is a service's, but no service has this port (B66).
    UnknownPort = 18, "unknown_port";
    /// Dropped: the sender would be told, but must not be (B42), or there were enough answers in this second; or a packet
    /// does not fit that may be cut into fragments, which is not done here (B41).
    Unanswered = 19, "unanswered";
    /// Passed: an ICMP error does not show whose packet it is about: a later fragment, another protocol, cut short, or
    /// not the receiver's (B40).
    IcmpQuote = 20, "icmp_quote";
    /// Dropped: an ICMP error towards a service address, about a packet of no connection and no frontend.
    IcmpStray = 21, "icmp_stray";
    /// Dropped: the address is one that services get, but none has it (B66).
    UnassignedAddress = 22, "unassigned_address";
    /// Dropped: the source is in none of the ranges that the load balancer's address serves (B59).
    SourceRange = 23, "source_range";
    /// Counted only: a local socket was connected, or sent a first datagram, straight to a backend (B67, B68).
    SocketTranslated = 24, "socket_translated";
    /// Counted only: the backend of a local socket is gone, and its next datagram went to another one (B69).
    SocketResteered = 25, "socket_resteered";
    /// Counted only: there is no room to remember what a local socket dialled. Datagrams stay untranslated; a connection is
    /// translated, and shows its backend as its peer (B70).
    SocketTableFull = 26, "socket_table_full";
    /// Counted only: the agent did not take events as fast as they came, and one was left out.
    EventLost = 27, "event_lost";
    /// Dropped unless its datagram's first piece follows: a fragment came before the first one and is held (B46).
    FragmentHeld = 28, "fragment_held";
    /// Counted only: a held fragment was sent again.
    FragmentReleased = 29, "fragment_released";
    /// Dropped: a fragment came before the first one and could not be held.
    FragmentLost = 30, "fragment_lost";
    /// Dropped: a first fragment for a VIP that ends before its transport header does, or one that contradicts another
    /// first fragment (RFC 5722); and the rest of such datagrams.
    FragmentRefused = 31, "fragment_refused";
    /// Dropped: there is no room for the header that would carry the packet to the backend's node.
    NoRoomForTunnel = 32, "no_room_for_tunnel";
    /// Passed: a packet inside of another one to this node that is for none of the backends here.
    ForeignTunnel = 33, "foreign_tunnel";
    /// Dropped: more connections began on this CPU in this second than `max-new-flows` allows (B23).
    NewFlowLimit = 34, "new_flow_limit";
    /// Counted only: more connections were established on this CPU in this second than `max-new-flows` allows; the connection
    /// stays in the half-open table until one of its next packets.
    PromotionDeferred = 35, "promotion_deferred";
    /// Dropped: a fragment, or a packet with IPv6 extension headers, of a connection with direct server return. The
    /// backend's node would not find out whose it is.
    NotTunnelled = 36, "not_tunnelled";
    /// Counted only: beyond `max-new-flows`, a packet of a connection with direct server return went on by the hash alone; the
    /// connection is not recorded (B23).
    FlowNotRecorded = 37, "flow_not_recorded";
}

macro_rules! notes {
    ($($(#[doc = $doc:literal])* $name:ident = $reason:ident;)*) => {
        /// What is counted besides a packet's fate: any number of them for one packet. All other reasons are counted with what
        /// became of the packet, one at most.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Note(Reason);

        impl Note {
            $($(#[doc = $doc])* pub const $name: Self = Self(Reason::$reason);)*

            /// Every note.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

notes! {
    /// [`Reason::PartialChecksum`]: at tc the packet has whatever fate it has.
    PARTIAL_CHECKSUM = PartialChecksum;
    /// [`Reason::PromotionRefused`].
    PROMOTION_REFUSED = PromotionRefused;
    /// [`Reason::PartnerRestored`].
    PARTNER_RESTORED = PartnerRestored;
    /// [`Reason::SocketTranslated`].
    SOCKET_TRANSLATED = SocketTranslated;
    /// [`Reason::SocketResteered`].
    SOCKET_RESTEERED = SocketResteered;
    /// [`Reason::SocketTableFull`].
    SOCKET_TABLE_FULL = SocketTableFull;
    /// [`Reason::EventLost`].
    EVENT_LOST = EventLost;
    /// [`Reason::FragmentReleased`].
    FRAGMENT_RELEASED = FragmentReleased;
    /// [`Reason::PromotionDeferred`].
    PROMOTION_DEFERRED = PromotionDeferred;
    /// [`Reason::FlowNotRecorded`].
    FLOW_NOT_RECORDED = FlowNotRecorded;
}

impl Note {
    /// The reason that has its counter.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        self.0
    }
}

impl Reason {
    /// Whether it is counted besides a packet's fate.
    pub fn is_note(self) -> bool {
        Note::ALL.contains(&Note(self))
    }

    /// The reason with this counter; [`Reason::Malformed`] if there is none.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a range check; a table of all reasons would have to be in the object")]
    pub const fn from_index(index: u8) -> Self {
        if (index as usize) < Self::ALL.len() {
            // SAFETY: `repr(u8)`, and the discriminants are 0 to the number of reasons (tested below).
            unsafe { core::mem::transmute::<u8, Self>(index) }
        } else {
            Self::Malformed
        }
    }
}

impl TryFrom<u8> for Reason {
    type Error = u8;

    fn try_from(index: u8) -> Result<Self, u8> {
        Self::ALL.get(usize::from(index)).copied().ok_or(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_no_gap_and_codes_are_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(Reason::from_index(index as u8), *reason);
            assert_eq!(Reason::ALL.iter().filter(|other| other.code() == reason.code()).count(), 1);
            let text = reason.text().trim();
            assert!(
                !reason.is_note() || text.starts_with("Counted only") || text.starts_with("Passed at XDP"),
                "{text}"
            );
            assert!(reason.is_note() || !text.starts_with("Counted only"), "{text}");
        }
    }
}
