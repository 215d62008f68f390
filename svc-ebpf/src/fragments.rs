//! Datagrams in pieces: their maps, and what the pipeline asks of them.
#![expect(unsafe_code, reason = "map values are shared with other CPUs")]

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use svc_common::{
    env::InsertError,
    family::{V4, V6},
    maps::{Datagram, DatagramKey, Held, HeldKey, spec},
    stage::rare::{Located, fragment::Fragments},
};

use crate::maps::{Kernel, inserted, value};

// Per CPU. A program that sends held frames again may be interrupted by the program that sees them (at egress); that one
// does not use the frame, as it knows the datagram.
#[map]
static HELD_SCRATCH: PerCpuArray<Held> = PerCpuArray::with_max_entries(spec::HELD_SCRATCH.capacity, 0);

macro_rules! family {
    ($family:ty, $addr:ty, $fragments:ident, $held:ident, $rare:ident) => {
        // Written by several CPUs: inserted if absent, replaced in place by the first piece; a lost count of held pieces
        // does not matter.
        #[map]
        static $fragments: LruHashMap<DatagramKey<$addr>, Datagram> =
            LruHashMap::with_max_entries(spec::$fragments.capacity, 0);
        // Inserted if absent, and removed by whoever sends the frame.
        #[map]
        static $held: LruHashMap<HeldKey<$addr>, Held> = LruHashMap::with_max_entries(spec::$held.capacity, 0);
        // Per CPU. At egress a program may be interrupted by itself, with a held frame that it sends again; it knows that.
        #[map]
        static $rare: PerCpuArray<Located<$addr>> = PerCpuArray::with_max_entries(spec::$rare.capacity, 0);

        impl Fragments<$family> for Kernel {
            type Located = &'static mut Located<$addr>;
            type Held = &'static mut Held;

            #[inline(always)]
            fn located(&mut self) -> Option<Self::Located> {
                // SAFETY: see the map; the stage asks once per packet.
                $rare.get_ptr_mut(0).map(|located| unsafe { value(located) })
            }

            #[inline(always)]
            fn keep_located(&mut self, _there_already: Self::Located) {}

            #[inline(always)]
            fn held_scratch(&mut self) -> Option<Self::Held> {
                // SAFETY: see the map; the stage asks once per packet.
                HELD_SCRATCH.get_ptr_mut(0).map(|held| unsafe { value(held) })
            }

            #[inline(always)]
            fn lookup_datagram(&mut self, key: &DatagramKey<$addr>) -> Option<&mut Datagram> {
                // SAFETY: just looked up.
                $fragments.get_ptr_mut(key).map(|datagram| unsafe { value(datagram) })
            }

            #[inline(always)]
            fn insert_datagram(&mut self, key: &DatagramKey<$addr>, datagram: &Datagram) {
                // A key that is taken was taken by another piece of the same datagram.
                let _ = $fragments.insert(key, datagram, u64::from(BPF_NOEXIST));
            }

            #[inline(always)]
            fn lookup_held(&mut self, key: &HeldKey<$addr>) -> Option<&Held> {
                // SAFETY: just looked up.
                $held.get_ptr_mut(key).map(|held| unsafe { &*value(held) })
            }

            #[inline(always)]
            fn insert_held(&mut self, key: &HeldKey<$addr>, held: &Held) -> Result<(), InsertError> {
                inserted($held.insert(key, held, u64::from(BPF_NOEXIST)))
            }

            #[inline(always)]
            fn remove_held(&mut self, key: &HeldKey<$addr>) -> bool {
                $held.remove(key).is_ok()
            }
        }
    };
}

family!(V4, [u8; 4], FRAGMENTS_V4, HELD_V4, RARE_V4);
family!(V6, [u8; 16], FRAGMENTS_V6, HELD_V6, RARE_V6);
