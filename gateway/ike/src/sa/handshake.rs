//! What the key exchanges of an IKE SA came to: all that IKE_AUTH builds on, on either side.

use zeroize::Zeroizing;

use super::Channel;
use crate::{
    algorithm::Group,
    crypto::{
        cipher::{Inner, MessageKey},
        keys::{Exchanged, SaKeys},
    },
    event::{Nat, Path},
    proposal::IkeSuite,
};

/// An IKE SA after IKE_SA_INIT, before both sides are authenticated.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(super) channel: Channel,
    pub(super) keys: SaKeys,
    pub(super) suite: IkeSuite,
    /// `None` where the peer knows nothing of NATs, or we are not to look for them.
    pub(super) nat: Option<Nat>,
    /// Ni.
    pub(super) initiator_nonce: Vec<u8>,
    /// Nr.
    pub(super) responder_nonce: Vec<u8>,
    /// The initiator's first message, which its AUTH covers.
    pub(super) request: Vec<u8>,
    /// The responder's, which its AUTH covers.
    pub(super) answer: Vec<u8>,
    pub(super) int_auth: IntAuth,
    /// The key of the last IKE_INTERMEDIATE request, which comes again where its answer was lost.
    pub(super) last_incoming: Option<MessageKey>,
    /// A request that is being computed: where its answer goes.
    pub(super) computing: Option<Path>,
}

/// What AUTH covers of the IKE_INTERMEDIATE exchanges (RFC 9242 section 3.3.2).
#[derive(Debug, Default)]
pub(super) struct IntAuth {
    initiator: Vec<u8>,
    responder: Vec<u8>,
    exchanges: u32,
}

impl Handshake {
    pub(crate) fn into_channel(self) -> Channel {
        self.channel
    }

    /// The additional key exchange that is still to be made.
    pub(crate) fn additional(&self) -> Option<Group> {
        self.suite.additional.filter(|_| self.int_auth.exchanges == 0)
    }

    /// Takes an IKE_INTERMEDIATE message of one side into IntAuth, by the keys that protected it.
    pub(super) fn cover(&mut self, by_initiator: bool, message: &Inner) {
        let covered = message.covered();
        let said = if by_initiator { &mut self.int_auth.initiator } else { &mut self.int_auth.responder };
        *said = self.keys.int_auth(by_initiator, said, &covered);
    }

    /// An additional key exchange is done, and its messages are covered: from here on its keys count.
    pub(super) fn advance(&mut self, shared: &[u8], spis: (u64, u64), initiator: bool) {
        let exchanged = Exchanged {
            initiator_nonce: &self.initiator_nonce,
            responder_nonce: &self.responder_nonce,
            initiator_spi: spis.0,
            responder_spi: spis.1,
        };
        let (keys, from_initiator, from_responder) = self.keys.additional(&self.suite, shared, &exchanged);
        self.keys = keys;
        let last =
            std::mem::replace(&mut self.channel, Channel::new(initiator, from_initiator, from_responder));
        self.last_incoming = Some(last.incoming);
        self.int_auth.exchanges += 1;
    }

    /// AUTH data of one side, by these keys: those of the handshake or those with a PPK.
    pub(super) fn auth(
        &self,
        keys: &SaKeys,
        by_initiator: bool,
        psk: &[u8],
        id_body: &[u8],
    ) -> Zeroizing<Vec<u8>> {
        let (message, nonce) = if by_initiator {
            (&self.request, &self.responder_nonce)
        } else {
            (&self.answer, &self.initiator_nonce)
        };
        let IntAuth { initiator, responder, exchanges } = &self.int_auth;
        // The message ID of IKE_AUTH follows those of the exchanges before it.
        let covered = match exchanges {
            0 => Vec::new(),
            _ => [&initiator[..], responder, &(exchanges + 1).to_be_bytes()].concat(),
        };
        keys.shared_key_auth(by_initiator, psk, message, nonce, id_body, &covered)
    }
}
