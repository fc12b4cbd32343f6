//! Encryption of messages, and the bookkeeping of its IVs (RFC 2409 section 5 and appendix B).
//!
//! All messages with one message ID, of both directions, form one chain of CBC: the IV of each is the last block of
//! ciphertext of the one before. Phase 1 has message ID zero and starts from a hash of the public values; every
//! other chain starts from a hash of phase 1's last block and its own message ID. So a message that is sent again is
//! sent as it was, one that comes again is known by its octets and not decrypted, and a message that does not prove
//! to be the peer's must not move the chain.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::wire::{Chain, Header, Payload, payload};
use crate::{
    algorithm::{Encryption, Prf},
    codec::{Damaged, Field, Reader, Writer},
    crypto::{cbc, prf::hash},
    wire::{WireError, header::set_length},
};

/// Exchanges with a chain at a time; beyond, the oldest gives way. Only the peer and we begin any.
const MAX_CHAINS: usize = 1024;
/// Message IDs of finished exchanges that are remembered, so that none is begun again by a replay, or by one of our own
/// messages that comes back. An SA that has used as many is at its end; days of dead peer detection do not.
const MAX_SPENT: usize = 16_384;
/// Another SA had better take its place from here on.
const WORN: usize = MAX_SPENT / 4 * 3;
/// Phase 1's message ID.
const PHASE_ONE: u32 = 0;

/// The cipher of an ISAKMP SA and the state of all its chains. The key is wiped when it is dropped.
pub(crate) struct MessageCipher {
    encryption: Encryption,
    prf: Prf,
    key: Zeroizing<Vec<u8>>,
    chains: BTreeMap<u32, CbcChain>,
    /// Message IDs in the order in which their chains began.
    begun: VecDeque<u32>,
    spent: BTreeSet<u32>,
}

/// One chain.
struct CbcChain {
    /// The IV of the next message.
    iv: Vec<u8>,
    /// The digest of the last message that was accepted.
    received: Option<[u8; 32]>,
}

/// A decrypted message. Nothing in it may be believed, nor the chain be moved, until its hash has been checked.
pub(crate) struct Opened {
    message_id: u32,
    plain: Zeroizing<Vec<u8>>,
    next_iv: Vec<u8>,
    digest: [u8; 32],
}

/// Why a message was not decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// No whole number of blocks, or none at all.
    Length,
    /// The same octets as the last message of this exchange.
    Repeated,
    /// The exchange is over: an old message, or a replay.
    Spent,
    /// More message IDs were used than are remembered: a replay could not be told any more.
    Exhausted,
}

impl MessageCipher {
    /// `iv` is the hash that phase 1 starts from, at least a block long.
    pub(super) fn new(encryption: Encryption, prf: Prf, key: Zeroizing<Vec<u8>>, iv: &[u8]) -> Self {
        debug_assert!(!encryption.is_aead() && encryption.key_len() == key.len());
        let iv = iv[..encryption.block_len()].to_vec();
        let chains = BTreeMap::from([(PHASE_ONE, CbcChain { iv, received: None })]);
        Self { encryption, prf, key, chains, begun: VecDeque::new(), spent: BTreeSet::new() }
    }

    /// A whole encrypted message, its header's encryption bit set. A retransmission must send the same octets again
    /// and not be sealed anew.
    pub(crate) fn seal(&mut self, header: Header, payloads: &[Payload]) -> Vec<u8> {
        let mut plain = Zeroizing::new(Vec::with_capacity(512));
        payload::encode_chain(payloads, &mut plain);
        let padded = plain.len().next_multiple_of(self.encryption.block_len());
        plain.resize(padded, 0);
        let iv = self.iv(header.message_id);
        let next_iv = cbc::encrypt(self.encryption, &self.key, &iv, &mut plain)
            .expect("whole blocks, and a key and an IV of the cipher's lengths");
        self.advance(header.message_id, next_iv, None);

        let mut out = Vec::with_capacity(plain.len() + 32);
        Header { encrypted: true, ..header }.encode(payload::first_type(payloads), &mut out);
        out.extend_from_slice(&plain);
        set_length(&mut out);
        out
    }

    /// Whether so many message IDs were used that another SA had better take the place of this one.
    pub(super) fn is_worn(&self) -> bool {
        self.spent.len() >= WORN
    }

    /// Decrypts what follows the header. Moves nothing: that is for [`Self::accept`] to do.
    pub(crate) fn open(&self, message_id: u32, ciphertext: &[u8]) -> Result<Opened, OpenError> {
        if self.spent.contains(&message_id) {
            return Err(OpenError::Spent);
        }
        if self.spent.len() >= MAX_SPENT && !self.chains.contains_key(&message_id) {
            return Err(OpenError::Exhausted);
        }
        let digest = Sha256::digest(ciphertext).into();
        if self.chains.get(&message_id).is_some_and(|chain| chain.received == Some(digest)) {
            return Err(OpenError::Repeated);
        }
        if ciphertext.is_empty() {
            return Err(OpenError::Length);
        }
        let mut plain = Zeroizing::new(ciphertext.to_vec());
        let next_iv = cbc::decrypt(self.encryption, &self.key, &self.iv(message_id), &mut plain)
            .map_err(|_| OpenError::Length)?;
        Ok(Opened { message_id, plain, next_iv, digest })
    }

    /// Moves the chain on after a message whose hash was right.
    pub(crate) fn accept(&mut self, opened: &Opened) {
        self.advance(opened.message_id, opened.next_iv.clone(), Some(opened.digest));
    }

    /// Forgets the chain of an exchange that is over; messages that still come with its ID are
    /// [`OpenError::Spent`]. Phase 1's stays, for all others start from it.
    pub(crate) fn finish(&mut self, message_id: u32) {
        if message_id == PHASE_ONE || self.chains.remove(&message_id).is_none() {
            return;
        }
        self.begun.retain(|begun| *begun != message_id);
        // Beyond, nothing is begun at all.
        if self.spent.len() < MAX_SPENT {
            self.spent.insert(message_id);
        }
    }

    /// Whether an exchange with this message ID is or was there: one that is to begin needs another.
    pub(crate) fn knows(&self, message_id: u32) -> bool {
        self.chains.contains_key(&message_id) || self.spent.contains(&message_id)
    }

    /// Appends it. Of the chains, those of phase 1 and of the exchanges in `kept`; whatever comes of the others is an old
    /// message for whoever reads it.
    pub(super) fn write(&self, kept: impl Fn(u32) -> bool, to: &mut Writer) {
        let Self { encryption, prf, key, chains, begun, spent } = self;
        (*encryption, *prf).write(to);
        key.write(to);
        let stays = |id: &u32| *id == PHASE_ONE || kept(*id);
        let ordered = [PHASE_ONE].iter().chain(begun).filter(|id| stays(id));
        let ordered = ordered.filter_map(|id| chains.get_key_value(id));
        let ordered: Vec<_> = ordered.map(|(id, chain)| (*id, (chain.iv.clone(), chain.received))).collect();
        ordered.write(to);
        let all = spent.iter().chain(begun.iter().filter(|id| !stays(id)));
        all.copied().collect::<Vec<_>>().write(to);
    }

    /// Takes one off the front.
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let (encryption, prf) = <(Encryption, Prf)>::read(from)?;
        let key = <Zeroizing<Vec<u8>>>::read(from)?;
        let ordered = <Vec<(u32, (Vec<u8>, Option<[u8; 32]>))>>::read(from)?;
        let spent: BTreeSet<u32> = <Vec<u32>>::read(from)?.into_iter().collect();
        let fits = !encryption.is_aead()
            && encryption != Encryption::Null
            && key.len() == encryption.key_len()
            && ordered.first().is_some_and(|(id, _)| *id == PHASE_ONE)
            && ordered.len() <= MAX_CHAINS + 1
            && spent.len() <= MAX_SPENT + MAX_CHAINS
            && ordered.iter().all(|(_, (iv, _))| iv.len() == encryption.block_len());
        if !fits {
            return Err(Damaged);
        }
        let begun = ordered.iter().map(|(id, _)| *id).filter(|id| *id != PHASE_ONE).collect();
        let chains =
            ordered.into_iter().map(|(id, (iv, received))| (id, CbcChain { iv, received })).collect();
        Ok(Self { encryption, prf, key, chains, begun, spent })
    }

    fn iv(&self, message_id: u32) -> Vec<u8> {
        if let Some(chain) = self.chains.get(&message_id) {
            return chain.iv.clone();
        }
        let phase_one = self.chains.get(&PHASE_ONE).map_or(&[][..], |chain| &chain.iv);
        let iv = hash(self.prf, &[phase_one, &message_id.to_be_bytes()]);
        iv[..self.encryption.block_len()].to_vec()
    }

    fn advance(&mut self, message_id: u32, iv: Vec<u8>, received: Option<[u8; 32]>) {
        if let Some(chain) = self.chains.get_mut(&message_id) {
            chain.iv = iv;
            chain.received = received.or(chain.received);
            return;
        }
        if self.begun.len() == MAX_CHAINS
            && let Some(oldest) = self.begun.front().copied()
        {
            self.finish(oldest);
        }
        self.begun.push_back(message_id);
        self.chains.insert(message_id, CbcChain { iv, received });
    }
}

impl Opened {
    /// Decodes the payloads, the first of which is of type `first`. A wrong key shows as an error here, too.
    pub(crate) fn chain(&self, first: u8) -> Result<Chain<'_>, WireError> {
        Chain::decode_padded(first, &self.plain)
    }
}

impl fmt::Debug for MessageCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageCipher({}, {} exchanges, ..)", self.encryption, self.chains.len())
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({:#010x}, ..)", self.message_id)
    }
}

#[cfg(test)]
mod tests;
