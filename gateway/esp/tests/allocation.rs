//! Sealing and opening allocate nothing.

use adit_esp::{AUTH_KEY_LEN, Auth, Cipher, Engine, KEY_LEN, Outcome, Outer, Packet, REPLAY_SLOTS};
use adit_esp::{Protocol, ReplayState, SaParams, SaStates};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::AtomicU64;

struct Counting;

thread_local! {
    // Of this thread only: the test harness allocates in its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to the system allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from System by `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

struct State(AtomicU64, [AtomicU64; REPLAY_SLOTS]);

impl SaStates for State {
    fn replay(&self, _: u32) -> Option<ReplayState<'_>> {
        Some(ReplayState { top: &self.0, slots: &self.1 })
    }
}

#[test]
fn sealing_and_opening_allocate_nothing() {
    let esp = |cipher: Cipher| {
        let auths = if cipher.is_aead() { &Auth::ALL[..1] } else { &Auth::ALL[1..] };
        auths.iter().map(move |auth| (Protocol::Esp, cipher, *auth))
    };
    let ah = Auth::ALL[1..].iter().map(|auth| (Protocol::Ah, Cipher::Null, *auth));
    for (protocol, cipher, auth) in Cipher::ALL.into_iter().flat_map(esp).chain(ah) {
        let mut engine = Engine::new(1);
        let params = SaParams {
            generation: 1,
            spi: 0x1000,
            protocol,
            cipher,
            auth,
            key: [1; KEY_LEN],
            salt: [2; 4],
            auth_key: [3; AUTH_KEY_LEN],
            esn: true,
            replay_window: 1024,
            outer: Outer {
                local: "2001:db8::1".parse().unwrap(),
                peer: "2001:db8::2".parse().unwrap(),
                udp: (protocol == Protocol::Esp).then_some((4500, 4500)),
            },
        };
        engine.install(0, &params).unwrap();
        let state = State(AtomicU64::new(0), [const { AtomicU64::new(0) }; REPLAY_SLOTS]);
        let mut buffers = vec![[0u8; 2048]; 256];
        let mut batch: Vec<Packet<'_>> = (1..)
            .zip(&mut buffers)
            .map(|(seq, buf)| {
                buf[100] = 0x45;
                buf[102..104].copy_from_slice(&(1400 - seq as u16).to_be_bytes());
                Packet::new(buf, 100, 1500 - seq as usize, 0, seq)
            })
            .collect();

        let before = ALLOCATIONS.get();
        engine.seal(&mut batch);
        assert!(batch.iter().all(|packet| packet.outcome == Outcome::Done));
        batch.iter_mut().for_each(|packet| packet.outcome = Outcome::Pending);
        engine.open(&mut batch, &state);
        assert!(batch.iter().all(|packet| packet.outcome == Outcome::Done));
        assert_eq!(ALLOCATIONS.get(), before, "{protocol:?}, {cipher:?} with {auth:?}");
    }
}
