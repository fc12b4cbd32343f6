//! AEAD on buffers in place: AES-GCM (RFC 4106, RFC 5282) and ChaCha20-Poly1305 (RFC 7634), all with a salt of 4
//! octets at the end of the key, an explicit IV of 8 and an ICV of 16.

use aes::{Aes128, Aes192, Aes256, cipher::consts::U16};
use aes_gcm::{
    AesGcm,
    aead::{AeadInOut, KeyInit, array::typenum::U12},
};
use chacha20poly1305::ChaCha20Poly1305;

use crate::algorithm::Encryption;

/// Octets of the IV.
pub(crate) const IV_LEN: usize = 8;
/// Octets of the ICV.
pub(crate) const ICV_LEN: usize = 16;

/// The algorithm is no AEAD, the key has another length than the algorithm's with its salt, or, in opening, the ICV
/// is not that of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AeadError;

/// Encrypts `data`; the ICV over it and `associated`. An IV must never come twice with one key.
pub(crate) fn seal(
    encryption: Encryption,
    key: &[u8],
    iv: &[u8; IV_LEN],
    associated: &[u8],
    data: &mut [u8],
) -> Result<[u8; ICV_LEN], AeadError> {
    let (key, nonce) = nonce(encryption, key, iv)?;
    match encryption {
        Encryption::Aes128Gcm16 => seal_with::<AesGcm<Aes128, U12>>(key, &nonce, associated, data),
        Encryption::Aes192Gcm16 => seal_with::<AesGcm<Aes192, U12>>(key, &nonce, associated, data),
        Encryption::Aes256Gcm16 => seal_with::<AesGcm<Aes256, U12>>(key, &nonce, associated, data),
        Encryption::ChaCha20Poly1305 => seal_with::<ChaCha20Poly1305>(key, &nonce, associated, data),
        _ => Err(AeadError),
    }
}

/// Decrypts `data`, unless the ICV is wrong.
pub(crate) fn open(
    encryption: Encryption,
    key: &[u8],
    iv: &[u8; IV_LEN],
    associated: &[u8],
    data: &mut [u8],
    icv: &[u8; ICV_LEN],
) -> Result<(), AeadError> {
    let (key, nonce) = nonce(encryption, key, iv)?;
    match encryption {
        Encryption::Aes128Gcm16 => open_with::<AesGcm<Aes128, U12>>(key, &nonce, associated, data, icv),
        Encryption::Aes192Gcm16 => open_with::<AesGcm<Aes192, U12>>(key, &nonce, associated, data, icv),
        Encryption::Aes256Gcm16 => open_with::<AesGcm<Aes256, U12>>(key, &nonce, associated, data, icv),
        Encryption::ChaCha20Poly1305 => open_with::<ChaCha20Poly1305>(key, &nonce, associated, data, icv),
        _ => Err(AeadError),
    }
}

/// The key proper, and the nonce of salt and IV.
fn nonce<'k>(
    encryption: Encryption,
    key: &'k [u8],
    iv: &[u8; IV_LEN],
) -> Result<(&'k [u8], [u8; 12]), AeadError> {
    let (key, salt) = key.split_last_chunk::<4>().ok_or(AeadError)?;
    if key.len() != encryption.key_len() {
        return Err(AeadError);
    }
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(salt);
    nonce[4..].copy_from_slice(iv);
    Ok((key, nonce))
}

fn seal_with<A>(key: &[u8], nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> Result<[u8; ICV_LEN], AeadError>
where
    A: KeyInit + AeadInOut<NonceSize = U12, TagSize = U16>,
{
    let cipher = A::new_from_slice(key).map_err(|_| AeadError)?;
    let icv = cipher.encrypt_inout_detached(nonce.into(), aad, data.into());
    icv.map(Into::into).map_err(|_| AeadError)
}

fn open_with<A>(
    key: &[u8],
    nonce: &[u8; 12],
    aad: &[u8],
    data: &mut [u8],
    icv: &[u8; ICV_LEN],
) -> Result<(), AeadError>
where
    A: KeyInit + AeadInOut<NonceSize = U12, TagSize = U16>,
{
    let cipher = A::new_from_slice(key).map_err(|_| AeadError)?;
    cipher.decrypt_inout_detached(nonce.into(), aad, data.into(), icv.into()).map_err(|_| AeadError)
}
