//! The data plane's sockets without a worker: frames go from one interface to another as they came, for who measures what
//! the worker adds to that.

use crate::{
    sys::{poll, readable},
    worker::BATCH,
    xsk::{Bind, Copying, RING, Socket, Umem, open_all},
};
use adit_maps::decode::ETHERNET;
use std::{
    io,
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// How long an idle forwarder sleeps before it looks whether it is to stop.
const NAP_MS: i32 = 20;

/// A socket on each of two interfaces, on one UMEM.
pub struct Forwarder {
    umem: Umem,
    from: Socket,
    to: Socket,
}

impl Forwarder {
    /// Binds to the first queues of two interfaces of the calling thread's network namespace, by their indices.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(from: u32, to: u32) -> io::Result<Self> {
        let umem = Umem::new(4 * RING + crate::SPARE_FRAMES, 0)?;
        let binds = [from, to].map(|ifindex| Bind { ifindex, queue: 0, long: false });
        let (sockets, _) = open_all(&binds, &umem, Copying::WhereNeeded).map_err(|(_, error)| error)?;
        let mut sockets = sockets.into_iter();
        let both = (sockets.next(), sockets.next());
        let (Some(from), Some(to)) = both else { return Err(io::Error::other("a socket is missing")) };
        let mut forwarder = Forwarder { umem, from, to };
        forwarder.from.refill(&mut forwarder.umem);
        Ok(forwarder)
    }

    /// The socket that frames are to be redirected to.
    pub fn receiver(&self) -> &impl AsRawFd {
        &self.from
    }

    /// Sends every frame on under this Ethernet header until it is to stop.
    pub fn run(&mut self, header: &[u8; ETHERNET], stop: &AtomicBool) {
        let mut fds = [readable(&self.from)];
        while !stop.load(Relaxed) {
            self.to.reap(&mut self.umem);
            let mut frames = 0;
            while frames < BATCH
                && let Some(received) = self.from.receive(&mut self.umem)
            {
                frames += 1;
                let Ok(mut received) = received else { continue };
                let (start, end) = (received.start, received.end);
                if let Some(old) = self.umem.bytes(&mut received.frame)[start..end].get_mut(..ETHERNET) {
                    old.copy_from_slice(header);
                }
                if let Err(frame) = self.to.transmit(&mut self.umem, received.frame, start, end) {
                    self.umem.give(frame);
                }
            }
            self.from.refill(&mut self.umem);
            self.to.flush();
            if frames == 0 {
                poll(&mut fds, NAP_MS);
            }
        }
    }
}
