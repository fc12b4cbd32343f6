//! The kernel's ends of a socket's rings, without a kernel: whoever has them gives frames and takes frames.

use super::{
    ring::{Consumer, Layout, Producer},
    socket::{RING, Socket},
    umem::{HEADROOM, Mapping, Umem},
};
use std::{fs::File, io, sync::Arc};

const LAYOUT: Layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192 };

/// What a NIC's queue is to a [`Socket`].
pub(crate) struct FarSide {
    receive: Producer<libc::xdp_desc>,
    transmit: Consumer<libc::xdp_desc>,
    fill: Consumer<u64>,
    completion: Producer<u64>,
}

impl FarSide {
    /// A socket, and the far side of its rings. It never asks to be woken, so that nothing is sent to its descriptor.
    ///
    /// # Errors
    /// When no memory can be mapped.
    pub(crate) fn new() -> io::Result<(Socket, Self)> {
        let (receive, near_receive) = ring()?;
        let (near_transmit, transmit) = ring()?;
        let (near_fill, fill) = ring()?;
        let (completion, near_completion) = ring()?;
        let fd = File::open("/dev/null")?.into();
        let socket = Socket::on((near_receive, near_transmit, near_fill, near_completion), fd, false);
        Ok((socket, FarSide { receive, transmit, fill, completion }))
    }

    /// Lets a frame come in, `before` lying right before it; false when the socket has no place for it, or it is longer
    /// than one. Seen after [`FarSide::commit`].
    pub(crate) fn give(&mut self, umem: &mut Umem, before: &[u8], frame: &[u8]) -> bool {
        if self.receive.room_for(1) == 0 {
            return false;
        }
        let Some(chunk) = self.fill.pop() else { return false };
        let at = chunk + HEADROOM as u64;
        let place = umem.given_up(at - before.len() as u64);
        let Some((head, rest)) = place.split_at_mut_checked(before.len()) else { return false };
        let Some(rest) = rest.get_mut(..frame.len()) else { return false };
        head.copy_from_slice(before);
        rest.copy_from_slice(frame);
        self.receive.push(libc::xdp_desc { addr: at, len: frame.len() as u32, options: 0 })
    }

    /// Lets the socket see what was given.
    pub(crate) fn commit(&mut self) {
        self.fill.release();
        self.receive.commit();
    }

    /// Takes every frame that the socket sends, and gives its chunk back; how many there were.
    pub(crate) fn take(&mut self, umem: &mut Umem, mut each: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while self.completion.room_for(1) > 0
            && let Some(descriptor) = self.transmit.pop()
        {
            each(&umem.given_up(descriptor.addr)[..descriptor.len as usize]);
            // There is room: asked just before.
            taken += usize::from(self.completion.push(descriptor.addr));
        }
        self.transmit.release();
        self.completion.commit();
        taken
    }
}

/// Both ends of a ring in memory of its own.
fn ring<T: Copy>() -> io::Result<(Producer<T>, Consumer<T>)> {
    let memory = Arc::new(Mapping::anonymous(LAYOUT.entries + RING as usize * size_of::<T>())?);
    // SAFETY: the layout fits the memory, which both ends keep, zeroed as the indices begin and wide enough for the
    // entries; there is one producer and one consumer.
    unsafe {
        let producer = Producer::new(memory.base(), LAYOUT, RING, Some(memory.clone()));
        Ok((producer, Consumer::new(memory.base(), LAYOUT, RING, Some(memory))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_round_between_a_socket_and_its_far_side() {
        let mut umem = Umem::new(2 * RING, 0).unwrap();
        let (mut socket, mut far) = FarSide::new().unwrap();
        assert!(!far.give(&mut umem, b"meta", b"too early"));
        for round in 0..3 * RING {
            socket.reap(&mut umem);
            socket.refill(&mut umem);
            assert!(far.give(&mut umem, b"meta", &round.to_be_bytes()));
            assert!(socket.receive(&mut umem).is_none());
            far.commit();
            let mut received = socket.receive(&mut umem).unwrap().unwrap();
            let (start, end) = (received.start, received.end);
            assert_eq!(&umem.bytes(&mut received.frame)[start - 4..start], b"meta");
            assert!(socket.transmit(&mut umem, received.frame, start, end).is_ok());
            assert_eq!(far.take(&mut umem, |_| ()), 0);
            socket.flush();
            assert_eq!(socket.unsent(), 1);
            let mut sent = Vec::new();
            assert_eq!(far.take(&mut umem, |frame| sent.extend(frame)), 1);
            assert_eq!((sent, socket.unsent()), (round.to_be_bytes().to_vec(), 0));
        }
        socket.reap(&mut umem);
        socket.refill(&mut umem);
        assert_eq!(umem.free(), RING as usize);
    }
}
