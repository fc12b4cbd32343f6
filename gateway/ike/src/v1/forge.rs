//! Messages of a peer that has the keys and says what it likes, for what is fuzzed.

use super::{
    Table,
    wire::{Header, Payload, payload::encode_chain},
};
use crate::{event::Path, wire::ExchangeType};

impl Table {
    /// A message on an ISAKMP SA in use, under its own keys, and the way it would take: a quick mode or an
    /// informational exchange, new or (by its place among them) one that is under way, with the right hash or without.
    pub(crate) fn forge(
        &mut self,
        quick: bool,
        hashed: bool,
        place: u8,
        mut payloads: Vec<Payload>,
    ) -> Option<(Path, Vec<u8>)> {
        let sa = self.sas.values_mut().find(|sa| sa.established().is_some())?;
        let (cookies, path) = (sa.cookies(), sa.path);
        let established = sa.established_mut()?;
        let under_way = established.exchanges.keys().nth(place.into()).copied();
        let message_id = under_way.unwrap_or(0x1000_0000 | u32::from(place));
        if hashed {
            let mut rest = Vec::new();
            encode_chain(&payloads, &mut rest);
            payloads.insert(0, Payload::Hash(established.keys.hash_1(message_id, &rest)));
        }
        let exchange = if quick { ExchangeType::QuickMode } else { ExchangeType::InformationalMode };
        let header = Header::new(cookies.0, cookies.1, exchange, message_id);
        Some((path, established.cipher.seal(header, &payloads)))
    }
}
