//! The numbers by which what the crate has words for is kept. A number never changes its meaning.

use std::ops::RangeInclusive;

use crate::{
    algorithm::{Encryption, Group, Integrity, Prf},
    codec::{Damaged, Field, Reader, Writer, numbered},
    config::{Mode, Protocol},
    event::{DownReason, Nat, Path},
    kept,
    proposal::{ChildSuite, IkeSuite},
    sa::Role,
    selector::TrafficSelector,
    timer::TimerKind,
    wire::ExchangeType,
};

numbered! {
    Encryption {
        Null = 0, Des = 1, TripleDes = 2, Aes128 = 3, Aes192 = 4, Aes256 = 5, Aes128Gcm16 = 6, Aes192Gcm16 = 7,
        Aes256Gcm16 = 8, ChaCha20Poly1305 = 9,
    }
    Integrity { Md5 = 0, Sha1 = 1, Sha256 = 2, Sha384 = 3, Sha512 = 4 }
    Prf { Md5 = 0, Sha1 = 1, Sha256 = 2, Sha384 = 3, Sha512 = 4 }
    Protocol { Esp = 0, Ah = 1 }
    Mode { Main = 0, Aggressive = 1 }
    Role { Initiator = 0, Responder = 1 }
    DownReason {
        ClosedByUs = 0, ClosedByPeer = 1, PeerDead = 2, Replaced = 3, Expired = 4, NoChild = 5, Broken = 6,
    }
    TimerKind {
        Retransmit = 0, Reassembly = 1, HalfOpen = 2, Liveness = 3, Keepalive = 4, SoftLifetime = 5, HardLifetime = 6,
        Children = 7, Superseded = 8, Linger = 9, Answer = 10,
    }
    ExchangeType {
        IkeSaInit = 0, IkeAuth = 1, CreateChildSa = 2, Informational = 3, IkeIntermediate = 4, IkeFollowupKe = 5,
        MainMode = 6, AggressiveMode = 7, QuickMode = 8, InformationalMode = 9, Transaction = 10,
    }
}

kept! {
    Path { local, remote }
    Nat { local, peer }
    IkeSuite { encryption, integrity, prf, group, additional }
    ChildSuite { protocol, encryption, integrity, esn, group }
}

/// By its IANA number.
impl Field for Group {
    fn write(&self, to: &mut Writer) {
        self.number().write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Self::from_number(u16::read(from)?).ok_or(Damaged)
    }
}

impl Field for TrafficSelector {
    fn write(&self, to: &mut Writer) {
        let Self { protocol, ports, start, end } = self;
        (*protocol, (*ports.start(), *ports.end())).write(to);
        (*start, *end).write(to);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let (protocol, (first, last)) = <(u8, (u16, u16))>::read(from)?;
        let (start, end) = Field::read(from)?;
        Ok(Self { protocol, ports: RangeInclusive::new(first, last), start, end })
    }
}
