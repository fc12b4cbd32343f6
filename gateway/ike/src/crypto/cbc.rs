//! CBC on buffers in place: DES (RFC 2405), 3DES (RFC 2451) and AES (RFC 3602).

use aes::{Aes128, Aes192, Aes256};
use cbc::{Decryptor, Encryptor};
use cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit,
};
use des::{Des, TdesEde3};

use crate::algorithm::Encryption;

/// The algorithm has no CBC mode, or the key, the IV or the data has a length that does not go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidLength;

/// Encrypts whole blocks; the last block of ciphertext, which is the next message's IV in IKEv1 (the IV itself when
/// there is no block).
pub(crate) fn encrypt(
    encryption: Encryption,
    key: &[u8],
    iv: &[u8],
    data: &mut [u8],
) -> Result<Vec<u8>, InvalidLength> {
    match encryption {
        Encryption::Des => encrypt_with::<Des>(key, iv, data),
        Encryption::TripleDes => encrypt_with::<TdesEde3>(key, iv, data),
        Encryption::Aes128 => encrypt_with::<Aes128>(key, iv, data),
        Encryption::Aes192 => encrypt_with::<Aes192>(key, iv, data),
        Encryption::Aes256 => encrypt_with::<Aes256>(key, iv, data),
        _ => return Err(InvalidLength),
    }?;
    Ok(last_block(encryption, iv, data))
}

/// Decrypts whole blocks; the last block of ciphertext, as [`encrypt`] returns it.
pub(crate) fn decrypt(
    encryption: Encryption,
    key: &[u8],
    iv: &[u8],
    data: &mut [u8],
) -> Result<Vec<u8>, InvalidLength> {
    let last = last_block(encryption, iv, data);
    match encryption {
        Encryption::Des => decrypt_with::<Des>(key, iv, data),
        Encryption::TripleDes => decrypt_with::<TdesEde3>(key, iv, data),
        Encryption::Aes128 => decrypt_with::<Aes128>(key, iv, data),
        Encryption::Aes192 => decrypt_with::<Aes192>(key, iv, data),
        Encryption::Aes256 => decrypt_with::<Aes256>(key, iv, data),
        _ => return Err(InvalidLength),
    }?;
    Ok(last)
}

fn last_block(encryption: Encryption, iv: &[u8], data: &[u8]) -> Vec<u8> {
    data.len().checked_sub(encryption.block_len()).map_or(iv, |at| &data[at..]).to_vec()
}

fn encrypt_with<C>(key: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), InvalidLength>
where
    C: KeyInit + BlockCipherEncrypt,
{
    let mut mode = Encryptor::<C>::new_from_slices(key, iv).map_err(|_| InvalidLength)?;
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    if !rest.is_empty() {
        return Err(InvalidLength);
    }
    mode.encrypt_blocks(blocks);
    Ok(())
}

fn decrypt_with<C>(key: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), InvalidLength>
where
    C: KeyInit + BlockCipherDecrypt,
{
    let mut mode = Decryptor::<C>::new_from_slices(key, iv).map_err(|_| InvalidLength)?;
    let (blocks, rest) = Array::slice_as_chunks_mut(data);
    if !rest.is_empty() {
        return Err(InvalidLength);
    }
    mode.decrypt_blocks(blocks);
    Ok(())
}
