//! The algorithms of an ESP SA: what they do to a packet from its SPI to the end of its ICV (RFC 4303 section 2).

use crate::aead::{self, Aead};
use crate::cbc::Cbc;
use crate::hmac::Hmac;
use crate::kernels::{Backend, LanesJob, Queue, cbc as cbc_kernel, gcm, mac};
use crate::sa::{Cipher, InvalidSa, SaParams};
use std::ops::Range;

/// SPI and sequence number.
pub(crate) const HEADER_LEN: usize = 8;

/// The algorithms of an SA with their keys.
pub(crate) enum Transform {
    Aead(Aead),
    Cbc(Cbc, Hmac, Option<Lanes>),
    Null(Hmac, Option<Lanes>),
}

/// The keys once more, for the kernels that work on many packets side by side.
pub(crate) struct Lanes {
    cbc: Option<Box<cbc_kernel::Key>>,
    mac: Box<mac::Key>,
}

impl Transform {
    /// Expands the keys of `params`.
    ///
    /// # Errors
    /// [`InvalidSa::Combination`] when cipher and integrity algorithm do not go together.
    pub(crate) fn new(params: &SaParams, backend: Backend) -> Result<Self, InvalidSa> {
        let (cipher, auth) = (params.cipher, params.auth);
        let key = &params.key[..cipher.key_len()];
        let hmac = Hmac::new(auth, &params.auth_key[..auth.key_len()]);
        let aes = matches!(cipher, Cipher::Aes128Cbc | Cipher::Aes192Cbc | Cipher::Aes256Cbc);
        let lanes = (aes || cipher == Cipher::Null).then(|| {
            let cbc = if aes { Some(cbc_kernel::Key::new(backend, key)?) } else { None };
            Some(Lanes { cbc, mac: mac::Key::new(backend, auth, &params.auth_key[..auth.key_len()])? })
        });
        let lanes = lanes.flatten();
        match (Aead::new(cipher, key, params.salt, backend), Cbc::new(cipher, key), hmac) {
            (Some(aead), None, None) => Ok(Transform::Aead(aead)),
            (None, Some(cbc), Some(hmac)) => Ok(Transform::Cbc(cbc, hmac, lanes)),
            (None, None, Some(hmac)) if cipher == Cipher::Null => Ok(Transform::Null(hmac, lanes)),
            _ => Err(InvalidSa::Combination { protocol: params.protocol, cipher, auth }),
        }
    }

    /// Bytes of the IV behind the header.
    pub(crate) const fn iv_len(&self) -> usize {
        match self {
            Transform::Aead(_) => aead::IV_LEN,
            Transform::Cbc(cbc, ..) => cbc.block_len(),
            Transform::Null(..) => 0,
        }
    }

    /// Bytes of the ICV at the end.
    pub(crate) const fn icv_len(&self) -> usize {
        match self {
            Transform::Aead(_) => aead::ICV_LEN,
            Transform::Cbc(_, hmac, _) | Transform::Null(hmac, _) => hmac.icv_len(),
        }
    }

    /// What the length of the encrypted text is a multiple of.
    pub(crate) const fn alignment(&self) -> usize {
        match self {
            Transform::Aead(_) | Transform::Null(..) => 4,
            Transform::Cbc(cbc, ..) => cbc.block_len(),
        }
    }

    /// Where the encrypted text lies in an ESP packet of `esp_len` bytes; `None` when no text has that length.
    #[inline(always)]
    pub(crate) fn text(&self, esp_len: usize) -> Option<Range<usize>> {
        let start = HEADER_LEN + self.iv_len();
        let end = esp_len.checked_sub(self.icv_len())?;
        let len = end.checked_sub(start)?;
        (len >= self.alignment() && len % self.alignment() == 0).then_some(start..end)
    }

    /// Writes the IV and the ICV of `esp`, complete from the SPI to the room for the ICV, and encrypts the text.
    pub(crate) fn seal(&self, esp: &mut [u8], seq: u64, seq_high: Option<u32>) {
        let hmac = match self {
            Transform::Aead(aead) => return aead.seal(esp, seq, seq_high),
            Transform::Cbc(cbc, hmac, _) => {
                let icv = esp.len() - hmac.icv_len();
                cbc.encrypt(&mut esp[HEADER_LEN..icv], seq);
                hmac
            }
            Transform::Null(hmac, _) => hmac,
        };
        let (covered, icv) = esp.split_at_mut(esp.len() - hmac.icv_len());
        hmac.sign(&[covered], seq_high, icv);
    }

    /// The AEAD whose packets go through AES-GCM's kernel as they come.
    #[inline(always)]
    pub(crate) fn streamed(&self) -> Option<(&Aead, &gcm::Key)> {
        match self {
            Transform::Aead(aead) => Some((aead, aead.gcm()?)),
            _ => None,
        }
    }

    /// Puts the packet into the queue of a kernel, for [`Transform::seal`] when it has a sequence number, else for
    /// [`Transform::open`]; `Err` gives it back where there is no kernel for it.
    pub(crate) fn queue<'a>(
        &'a self,
        queue: &mut Queue<'a>,
        position: usize,
        esp: &'a mut [u8],
        seq_to_seal: Option<u64>,
        seq_high: Option<u32>,
    ) -> Result<(), &'a mut [u8]> {
        let lanes = match self {
            Transform::Aead(aead) => return aead.queue(queue, position, esp, seq_to_seal, seq_high),
            Transform::Cbc(_, _, lanes) | Transform::Null(_, lanes) => lanes,
        };
        let Some(Lanes { cbc, mac }) = lanes else { return Err(esp) };
        let seq = seq_to_seal.unwrap_or(0);
        let cbc = cbc.as_deref();
        let job = LanesJob { position, cbc, mac, alone: self, esp, seq, seq_high, authentic: false };
        match seq_to_seal {
            Some(_) => queue.seal_in_lanes(job),
            None => queue.open_in_lanes(job),
        }
        Ok(())
    }

    /// Verifies `esp`, whose length [`Transform::text`] has accepted, and decrypts its text; when false, the text is
    /// as it was or zeros.
    #[must_use]
    pub(crate) fn open(&self, esp: &mut [u8], seq_high: Option<u32>) -> bool {
        let (cbc, hmac) = match self {
            Transform::Aead(aead) => return aead.open(esp, seq_high),
            Transform::Cbc(cbc, hmac, _) => (Some(cbc), hmac),
            Transform::Null(hmac, _) => (None, hmac),
        };
        let (covered, icv) = esp.split_at_mut(esp.len() - hmac.icv_len());
        if !hmac.verify(&[covered], seq_high, icv) {
            return false;
        }
        if let Some(cbc) = cbc {
            cbc.decrypt(&mut covered[HEADER_LEN..]);
        }
        true
    }
}
