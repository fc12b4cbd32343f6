//! Lifetimes as attributes (RFC 2407 section 4.5, RFC 2409 appendix A) and in RESPONDER-LIFETIME (RFC 2407 section
//! 4.6.3.1).

use std::time::Duration;

use crate::v1::wire::{Attribute, Notify, NotifyType, ProtocolId, sa::decode_attributes};

/// The attribute "life type" of phase 1; the duration's is one more.
pub(super) const LIFE_TYPE_PHASE_ONE: u16 = 11;
/// The attribute "SA life type" of phase 2; the duration's is one more.
pub(super) const LIFE_TYPE_PHASE_TWO: u16 = 1;
const SECONDS: u64 = 1;
const KILOBYTES: u64 = 2;

/// How long an SA may live: each of the two as far as it was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// Whole seconds.
    pub(crate) time: Option<Duration>,
    /// Bytes; told in units of 1,024.
    pub(crate) bytes: Option<u64>,
}

impl Lifetime {
    /// The shorter of both, of each unit.
    pub(crate) fn min(self, other: Self) -> Self {
        fn shorter<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self { time: shorter(self.time, other.time), bytes: shorter(self.bytes, other.bytes) }
    }

    /// Pairs of life type and life duration.
    pub(super) fn attributes(self, life_type: u16) -> Vec<Attribute> {
        let seconds = self.time.map(|time| (SECONDS, time.as_secs()));
        let kilobytes = self.bytes.map(|bytes| (KILOBYTES, bytes.div_ceil(1024)));
        let pair = |(unit, duration): (u64, u64)| {
            let duration = u32::try_from(duration).unwrap_or(u32::MAX);
            [Attribute::new(life_type, unit as u32), Attribute::new(life_type + 1, duration)]
        };
        seconds.into_iter().chain(kilobytes).flat_map(pair).collect()
    }

    /// From pairs of life type and life duration; `None` where they are not pairs, or in a unit that nobody knows.
    pub(super) fn of<'a>(attributes: impl Iterator<Item = &'a Attribute>, life_type: u16) -> Option<Self> {
        let mut lifetime = Self::default();
        let mut unit = None;
        for attribute in attributes {
            let number = attribute.number()?;
            if attribute.kind == life_type {
                if unit.replace(number).is_some() {
                    return None;
                }
                continue;
            }
            match unit.take()? {
                SECONDS => lifetime.time = Some(Duration::from_secs(number)),
                KILOBYTES => lifetime.bytes = Some(number.saturating_mul(1024)),
                _ => return None,
            }
        }
        unit.is_none().then_some(lifetime)
    }

    /// RESPONDER-LIFETIME about an SA of ESP or AH, by the SPI that the peer is to know it by.
    pub(crate) fn notify_child(self, protocol: ProtocolId, spi: u32) -> Notify {
        Notify::about_child(NotifyType::RESPONDER_LIFETIME, protocol, spi, [])
            .with_attributes(&self.attributes(LIFE_TYPE_PHASE_TWO))
    }

    /// RESPONDER-LIFETIME about the ISAKMP SA.
    pub(crate) fn notify_isakmp(self, cookies: (u64, u64)) -> Notify {
        Notify::about_isakmp(NotifyType::RESPONDER_LIFETIME, cookies, [])
            .with_attributes(&self.attributes(LIFE_TYPE_PHASE_ONE))
    }

    /// What RESPONDER-LIFETIME says; `None` for another notify or one that is malformed. About the ISAKMP SA some
    /// peers use the numbers of phase 2, which RFC 2407 leaves open.
    pub(crate) fn of_notify(notify: &Notify) -> Option<Self> {
        if notify.kind != NotifyType::RESPONDER_LIFETIME {
            return None;
        }
        let attributes = decode_attributes(&notify.data).ok()?;
        let phase_one = attributes.iter().any(|attribute| attribute.kind == LIFE_TYPE_PHASE_ONE);
        let life_type = match notify.protocol {
            ProtocolId::Isakmp if phase_one => LIFE_TYPE_PHASE_ONE,
            _ => LIFE_TYPE_PHASE_TWO,
        };
        let life = attributes.iter().filter(|a| (life_type..=life_type + 1).contains(&a.kind));
        Self::of(life, life_type)
    }
}
