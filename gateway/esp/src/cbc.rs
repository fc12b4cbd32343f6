//! CBC in ESP: AES (RFC 3602), DES (RFC 2405) and 3DES (RFC 2451).

use crate::sa::Cipher;
use aes::{Aes128, Aes192, Aes256};
use cbc::{Decryptor, Encryptor};
use cipher::array::Array;
use cipher::typenum::Unsigned;
use cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit,
    KeyInit,
};
use des::{Des, TdesEde3};

/// The expanded key of an SA.
pub(crate) enum Cbc {
    Des(Des),
    TripleDes(TdesEde3),
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Cbc {
    /// Expands `key`, of the cipher's length; `None` when the cipher is not CBC.
    pub(crate) fn new(cipher: Cipher, key: &[u8]) -> Option<Self> {
        match cipher {
            Cipher::DesCbc => Des::new_from_slice(key).ok().map(Cbc::Des),
            Cipher::TripleDesCbc => TdesEde3::new_from_slice(key).ok().map(Cbc::TripleDes),
            Cipher::Aes128Cbc => Aes128::new_from_slice(key).ok().map(Cbc::Aes128),
            Cipher::Aes192Cbc => Aes192::new_from_slice(key).ok().map(Cbc::Aes192),
            Cipher::Aes256Cbc => Aes256::new_from_slice(key).ok().map(Cbc::Aes256),
            _ => None,
        }
    }

    /// Bytes of the IV and of a block.
    pub(crate) const fn block_len(&self) -> usize {
        match self {
            Cbc::Des(_) | Cbc::TripleDes(_) => 8,
            Cbc::Aes128(_) | Cbc::Aes192(_) | Cbc::Aes256(_) => 16,
        }
    }

    /// Writes the IV at the beginning of `text` and encrypts the blocks behind it.
    pub(crate) fn encrypt(&self, text: &mut [u8], seq: u64) {
        match self {
            Cbc::Des(des) => encrypt(des, text, seq),
            Cbc::TripleDes(des) => encrypt(des, text, seq),
            Cbc::Aes128(aes) => encrypt(aes, text, seq),
            Cbc::Aes192(aes) => encrypt(aes, text, seq),
            Cbc::Aes256(aes) => encrypt(aes, text, seq),
        }
    }

    /// Decrypts the blocks behind the IV at the beginning of `text`.
    pub(crate) fn decrypt(&self, text: &mut [u8]) {
        match self {
            Cbc::Des(des) => decrypt(des, text),
            Cbc::TripleDes(des) => decrypt(des, text),
            Cbc::Aes128(aes) => decrypt(aes, text),
            Cbc::Aes192(aes) => decrypt(aes, text),
            Cbc::Aes256(aes) => decrypt(aes, text),
        }
    }
}

fn encrypt<C: BlockCipherEncrypt>(cipher: &C, text: &mut [u8], seq: u64) {
    // The encrypted nonce of NIST SP 800-38A appendix C: nobody without the key can tell it beforehand.
    let mut iv = Array::<u8, C::BlockSize>::default();
    let low = C::BlockSize::USIZE - size_of::<u64>();
    iv[low..].copy_from_slice(&seq.to_be_bytes());
    cipher.encrypt_block(&mut iv);
    text[..iv.len()].copy_from_slice(&iv);
    encrypt_behind_iv(cipher, text);
}

fn encrypt_behind_iv<C: BlockCipherEncrypt>(cipher: &C, text: &mut [u8]) {
    let (iv, blocks) = split::<C>(text);
    Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
}

fn decrypt<C: BlockCipherDecrypt>(cipher: &C, text: &mut [u8]) {
    let (iv, blocks) = split::<C>(text);
    Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
}

type Blocks<'a, C> =
    (&'a Array<u8, <C as BlockSizeUser>::BlockSize>, &'a mut [Array<u8, <C as BlockSizeUser>::BlockSize>]);

/// The IV and the whole blocks behind it.
fn split<C: BlockSizeUser>(text: &mut [u8]) -> Blocks<'_, C> {
    let (blocks, _) = Array::slice_as_chunks_mut(text);
    let (iv, payload) = blocks.split_first_mut().expect("the engine has made room for an IV");
    (iv, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::unhex;

    const SP_800_38A_PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51";
    const SP_800_38A_IV: &str = "000102030405060708090a0b0c0d0e0f";

    /// Cipher, key, IV, plaintext, ciphertext.
    const CASES: [(Cipher, &str, &str, &str, &str); 6] = [
        // FIPS 81 appendix C, table C2: "Now is the time for all ".
        (
            Cipher::DesCbc,
            "0123456789abcdef",
            "1234567890abcdef",
            "4e6f77206973207468652074696d6520666f7220616c6c20",
            "e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6",
        ),
        // NIST CAVP, TCBCMMT3, the second encryption.
        (
            Cipher::TripleDesCbc,
            "6d0d67da68ab166d1f43c7204c4c2aa4c81a528515f1dff2",
            "68e63a07b22e33eb",
            "4346c4e81380626fa0b2776d30a4fc05",
            "5274be183f5dfb6b018f22b322f0392d",
        ),
        // RFC 3602 section 4, case 1: "Single block msg".
        (
            Cipher::Aes128Cbc,
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            "53696e676c6520626c6f636b206d7367",
            "e353779c1079aeb82708942dbe77181a",
        ),
        // RFC 3602 section 4, case 2.
        (
            Cipher::Aes128Cbc,
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ),
        // NIST SP 800-38A F.2.3.
        (
            Cipher::Aes192Cbc,
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            SP_800_38A_IV,
            SP_800_38A_PLAIN,
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
        ),
        // NIST SP 800-38A F.2.5.
        (
            Cipher::Aes256Cbc,
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            SP_800_38A_IV,
            SP_800_38A_PLAIN,
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
        ),
    ];

    #[test]
    fn published_vectors() {
        for (cipher, key, iv, plain, sealed) in CASES {
            let cbc = Cbc::new(cipher, &unhex(key)).unwrap();
            let clear = [unhex(iv), unhex(plain)].concat();
            let mut text = clear.clone();
            match &cbc {
                Cbc::Des(des) => encrypt_behind_iv(des, &mut text),
                Cbc::TripleDes(des) => encrypt_behind_iv(des, &mut text),
                Cbc::Aes128(aes) => encrypt_behind_iv(aes, &mut text),
                Cbc::Aes192(aes) => encrypt_behind_iv(aes, &mut text),
                Cbc::Aes256(aes) => encrypt_behind_iv(aes, &mut text),
            }
            assert_eq!(text, [unhex(iv), unhex(sealed)].concat(), "{cipher:?}");
            cbc.decrypt(&mut text);
            assert_eq!(text, clear);
        }
    }

    #[test]
    fn ivs_look_random_and_differ() {
        for (cipher, key) in [(Cipher::DesCbc, &[1; 8][..]), (Cipher::Aes128Cbc, &[1; 16])] {
            let cbc = Cbc::new(cipher, key).unwrap();
            let mut ivs = std::collections::HashSet::new();
            for seq in (1..1000).chain([u64::from(u32::MAX), 1 << 32, u64::MAX]) {
                let mut text = [0; 32];
                cbc.encrypt(&mut text, seq);
                assert!(ivs.insert(text[..cbc.block_len()].to_vec()));
                assert_ne!(text[..8], [0; 8]);
            }
        }
    }
}
