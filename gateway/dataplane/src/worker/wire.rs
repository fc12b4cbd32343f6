//! A worker's sockets and their memory: how packets leave.

use super::{
    Origin,
    hold::{Hold, Outgoing},
    sa::Sas,
};
use crate::{
    nexthop::{Hop, Resolution, View},
    outlet::Outlet,
    xsk::{Frame, Lost, Received, Socket, Umem},
};
use adit_maps::{
    address::Address,
    decode::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    port::MAX_PORTS,
    sa::DropCause,
};
use std::time::Instant;

pub(crate) struct Wire {
    pub(super) umem: Umem,
    pub(super) view: View,
    sockets: Vec<Socket>,
    /// Where there is no AF_XDP: what leaves goes through the kernel.
    outlet: Option<Outlet>,
    /// Slot of the port of each socket.
    slots: Vec<u32>,
    /// The socket that sends by the port of a slot.
    by_slot: [Option<usize>; MAX_PORTS as usize],
    hold: Hold,
}

impl Wire {
    /// From sockets and the slots of their ports, in the same order.
    pub(crate) fn new(umem: Umem, sockets: Vec<Socket>, slots: Vec<u32>, view: View) -> Self {
        let mut by_slot = [None; MAX_PORTS as usize];
        for (number, slot) in slots.iter().enumerate().rev() {
            by_slot[*slot as usize] = Some(number);
        }
        let mut wire = Wire { umem, view, sockets, outlet: None, slots, by_slot, hold: Hold::new() };
        for socket in &mut wire.sockets {
            socket.refill(&mut wire.umem);
        }
        wire
    }

    /// Without AF_XDP: packets come from the kernel and go to it.
    pub(crate) fn by_kernel(umem: Umem, outlet: Outlet, view: View) -> Self {
        Wire { outlet: Some(outlet), ..Wire::new(umem, Vec::new(), Vec::new(), view) }
    }

    /// Whether it is the kernel that packets come from and go to.
    pub(super) fn is_by_kernel(&self) -> bool {
        self.outlet.is_some()
    }

    pub(crate) fn sockets(&self) -> impl ExactSizeIterator<Item = &Socket> {
        self.sockets.iter()
    }

    #[inline(always)]
    pub(super) fn receive(&mut self, number: usize) -> Option<Result<Received, Lost>> {
        self.sockets[number].receive(&mut self.umem)
    }

    /// Takes back what was sent, and sends what has waited for a neighbour that is known by now.
    pub(super) fn settle(&mut self, now: Instant, sas: &Sas) {
        for socket in &mut self.sockets {
            socket.reap(&mut self.umem);
        }
        let changed = self.view.refresh();
        if self.hold.len() > 0 && (changed || self.hold.deadline().is_some_and(|d| d <= now)) {
            self.release(now, sas);
        }
    }

    /// Gives the kernel frames for what comes next, and kicks every socket that has something to send.
    pub(super) fn flush(&mut self) {
        for socket in &mut self.sockets {
            socket.refill(&mut self.umem);
            socket.flush();
        }
    }

    /// Whether there is something to do soon although nothing comes in: frames that the kernel has not taken, or none
    /// left to receive into until it gives back those it has.
    pub(super) fn awaits_frames(&self) -> bool {
        self.umem.free() == 0 || self.sockets.iter().any(Socket::is_sending)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.hold.deadline()
    }

    /// Packets that wait for a neighbour.
    pub(super) fn held(&self) -> usize {
        self.hold.len()
    }

    /// Pieces of packets that the kernel has not taken yet.
    pub(super) fn unsent(&self) -> usize {
        self.sockets.iter().map(|socket| socket.unsent() as usize).sum()
    }

    /// What part of the fullest receive ring and of the fullest transmit ring waits to be taken, in millionths.
    pub(super) fn fill(&self) -> [u64; 2] {
        let both = self.sockets.iter().map(Socket::fill);
        both.fold([0; 2], |most, fill| [most[0].max(fill[0]), most[1].max(fill[1])])
    }

    /// Frames that the kernel could not give to a socket, since this was last asked.
    pub(super) fn missed(&mut self) -> u64 {
        self.sockets.iter_mut().map(Socket::missed).sum()
    }

    pub(super) fn free_frames(&self) -> usize {
        self.umem.free()
    }

    /// Sends an IP packet the way that `resolution` says, or lets it wait.
    ///
    /// # Errors
    /// The frame, and why the packet is dropped.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        packet: Outgoing,
        resolution: Resolution,
        now: Instant,
    ) -> Result<(), (Frame, DropCause)> {
        match resolution {
            Resolution::Hop(hop) if self.outlet.is_none() => {
                self.transmit(packet.frame, packet.start, packet.end, &hop)
            }
            _ => self.send_otherwise(packet, resolution, now),
        }
    }

    /// The same, where it is not a port's ring that most packets go to.
    #[inline(never)]
    fn send_otherwise(
        &mut self,
        packet: Outgoing,
        resolution: Resolution,
        now: Instant,
    ) -> Result<(), (Frame, DropCause)> {
        if let Some(outlet) = &self.outlet {
            let slot = match resolution {
                Resolution::Hop(hop) => Some(hop.slot),
                Resolution::Unresolved { neighbour, .. } => outlet.slot(neighbour.interface),
                Resolution::Local | Resolution::None => None,
            };
            let Outgoing { mut frame, start, end, destination, .. } = packet;
            let bytes = &self.umem.bytes(&mut frame)[start..end];
            return match slot.map_or(Err(DropCause::NoRoute), |slot| outlet.send(slot, bytes, &destination)) {
                Ok(()) => {
                    self.umem.give(frame);
                    Ok(())
                }
                Err(cause) => Err((frame, cause)),
            };
        }
        match resolution {
            Resolution::Unresolved { neighbour, .. } => match self.hold.push(packet, now) {
                Ok(is_first) => {
                    // If too many ask, the first packet after these have waited in vain asks again.
                    if is_first {
                        self.view.ask_for(neighbour);
                    }
                    Ok(())
                }
                Err(packet) => Err((packet.frame, DropCause::NoRoute)),
            },
            Resolution::Hop(hop) => self.transmit(packet.frame, packet.start, packet.end, &hop),
            Resolution::Local | Resolution::None => Err((packet.frame, DropCause::NoRoute)),
        }
    }

    /// Sends the IP packet at `start..end` back by the port it came in by, to where its Ethernet header says.
    ///
    /// # Errors
    /// The frame, when the ring is full or the packet did not come in by a port.
    pub(super) fn send_back(
        &mut self,
        frame: Frame,
        start: usize,
        end: usize,
        by: Origin,
        macs: [[u8; 6]; 2],
    ) -> Result<(), Frame> {
        let Origin::Socket(number) = by else { return Err(frame) };
        let hop = Hop { slot: self.slots[number], mtu: 0, destination: macs[0], source: macs[1] };
        self.transmit(frame, start, end, &hop).map_err(|(frame, _)| frame)
    }

    /// The gateway's address on the port that a packet came in by, of the version of `like`.
    pub(super) fn own_address(&self, origin: Origin, like: &Address) -> Option<Address> {
        match origin {
            Origin::Socket(number) => self.view.snapshot().own_address(self.slots[number], like),
            Origin::Tun => None,
        }
    }

    #[inline(always)]
    fn transmit(
        &mut self,
        mut frame: Frame,
        start: usize,
        end: usize,
        hop: &Hop,
    ) -> Result<(), (Frame, DropCause)> {
        let Some(number) = self.by_slot[hop.slot as usize] else { return Err((frame, DropCause::NoRoute)) };
        let Some(ethernet) = start.checked_sub(ETHERNET) else { return Err((frame, DropCause::TooBig)) };
        let buf = self.umem.bytes(&mut frame);
        let kind = if buf[start] >> 4 == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
        let header = &mut buf[ethernet..start];
        header[..6].copy_from_slice(&hop.destination);
        header[6..12].copy_from_slice(&hop.source);
        header[12..].copy_from_slice(&kind.to_be_bytes());
        self.sockets[number]
            .transmit(&mut self.umem, frame, ethernet, end)
            .map_err(|frame| (frame, DropCause::QueueFull))
    }

    /// Sends every packet whose neighbour is known by now; drops those whose time is over.
    fn release(&mut self, now: Instant, sas: &Sas) {
        let mut hold = std::mem::take(&mut self.hold);
        let is_resolved = |r: &Resolution| !matches!(r, Resolution::Unresolved { .. });
        let view = &mut self.view;
        let mut ready = Vec::new();
        hold.take(now, |p| is_resolved(&view.resolve(p.way, &p.destination)), |packet| ready.push(packet));
        self.hold = hold;
        for packet in ready {
            let sa = packet.sa;
            let resolution = match self.view.resolve(packet.way, &packet.destination) {
                Resolution::Unresolved { .. } => Resolution::None,
                known => known,
            };
            if let Err((frame, cause)) = self.send(packet, resolution, now) {
                sas.count_drop(sa, cause);
                self.umem.give(frame);
            }
        }
    }
}
