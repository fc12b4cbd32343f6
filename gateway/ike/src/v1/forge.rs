//! Messages of a peer that has the keys and says what it likes, for what is fuzzed.

use super::{
    Table,
    keys::QuickExchanged,
    quick::Step,
    wire::{Header, Payload, payload::encode_chain},
};
use crate::{event::Path, wire::ExchangeType};

/// Which hash a message begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hash {
    None,
    /// HASH(1), as new exchanges and informational ones have it.
    First,
    /// What the other end waits for in the quick mode that is under way: HASH(2) of its responder, HASH(3) of its
    /// initiator.
    Next,
}

impl Table {
    /// A message on an ISAKMP SA in use, under its own keys, and the way it would take: a quick mode or an
    /// informational exchange, new or (by its place among them) one that is under way.
    pub(crate) fn forge(
        &mut self,
        quick: bool,
        hash: Hash,
        place: u8,
        mut payloads: Vec<Payload>,
    ) -> Option<(Path, Vec<u8>)> {
        let sa = self.sas.values_mut().find(|sa| sa.established().is_some())?;
        let (cookies, path) = (sa.cookies(), sa.path);
        let established = sa.established_mut()?;
        let under_way = established.exchanges.keys().nth(place.into()).copied();
        let message_id = under_way.unwrap_or(0x1000_0000 | u32::from(place));
        let mut rest = Vec::new();
        encode_chain(&payloads, &mut rest);
        let keys = &established.keys;
        let quick_mode =
            established.exchanges.get(&message_id).and_then(|exchange| exchange.quick.as_deref());
        let octets = match (hash, quick_mode) {
            (Hash::None, _) => None,
            (Hash::Next, Some(it)) if matches!(it.step, Step::Responding | Step::Answered) => {
                Some(keys.hash_2(message_id, &it.peer_nonce, &rest))
            }
            (Hash::Next, Some(it)) => {
                let (initiator_nonce, responder_nonce) = (&it.nonce[..], &it.peer_nonce[..]);
                let exchanged = QuickExchanged { initiator_nonce, responder_nonce, shared: None };
                Some(keys.hash_3(message_id, &exchanged))
            }
            _ => Some(keys.hash_1(message_id, &rest)),
        };
        if let Some(octets) = octets {
            payloads.insert(0, Payload::Hash(octets));
        }
        let exchange = if quick { ExchangeType::QuickMode } else { ExchangeType::InformationalMode };
        let header = Header::new(cookies.0, cookies.1, exchange, message_id);
        Some((path, established.cipher.seal(header, &payloads)))
    }
}
