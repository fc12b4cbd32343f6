use super::*;
use crate::wire::ExchangeType;

const ID: u32 = 0x1234_5678;

fn cipher(encryption: Encryption) -> MessageCipher {
    let key = Zeroizing::new((0..encryption.key_len() as u8).map(|octet| octet * 3 + 1).collect());
    MessageCipher::new(encryption, Prf::Sha1, key, &[9; 20])
}

fn header(message_id: u32) -> Header {
    Header::new(1, 2, ExchangeType::QuickMode, message_id)
}

fn payloads(length: usize) -> Vec<Payload> {
    vec![Payload::Hash(vec![7; length]), Payload::Nonce(vec![8; 16])]
}

/// What arrives of a message: its ID, its first payload, and what follows the header.
fn arrived(message: &[u8]) -> (u32, u8, &[u8]) {
    let (header, first, rest) = Header::decode(message).unwrap();
    assert!(header.encrypted);
    (header.message_id, first, rest)
}

fn open(cipher: &mut MessageCipher, message: &[u8]) -> Result<Vec<Payload>, OpenError> {
    let (id, first, rest) = arrived(message);
    let opened = cipher.open(id, rest)?;
    cipher.accept(&opened);
    Ok(opened.chain(first).unwrap().payloads)
}

#[test]
fn both_ends_follow_a_chain_to_and_fro() {
    for encryption in [Encryption::Des, Encryption::TripleDes, Encryption::Aes128, Encryption::Aes256] {
        let (mut a, mut b) = (cipher(encryption), cipher(encryption));
        for id in [PHASE_ONE, ID, ID + 1, ID] {
            for length in 1..20 {
                let there = a.seal(header(id), &payloads(length));
                assert_eq!(open(&mut b, &there), Ok(payloads(length)));
                let back = b.seal(header(id), &payloads(length + 1));
                assert_eq!(open(&mut a, &back), Ok(payloads(length + 1)));
            }
        }
    }
}

#[test]
fn chains_of_two_exchanges_do_not_disturb_each_other() {
    let (mut a, mut b) = (cipher(Encryption::Aes128), cipher(Encryption::Aes128));
    let first = [a.seal(header(1), &payloads(1)), a.seal(header(2), &payloads(2))];
    assert_eq!(open(&mut b, &first[1]), Ok(payloads(2)));
    assert_eq!(open(&mut b, &first[0]), Ok(payloads(1)));
    let second = [b.seal(header(1), &payloads(3)), b.seal(header(2), &payloads(4))];
    assert_eq!(open(&mut a, &second[1]), Ok(payloads(4)));
    assert_eq!(open(&mut a, &second[0]), Ok(payloads(3)));
}

/// Phase 1's last block is what every other chain starts from, whichever side sent it.
#[test]
fn phase_two_starts_from_the_end_of_phase_one() {
    let (mut a, mut b) = (cipher(Encryption::Aes128), cipher(Encryption::Aes128));
    let early = a.iv(ID);
    let last = a.seal(header(PHASE_ONE), &payloads(5));
    assert_eq!(open(&mut b, &last), Ok(payloads(5)));
    let expected = &hash(Prf::Sha1, &[&last[last.len() - 16..], &ID.to_be_bytes()])[..16];
    assert_eq!((&a.iv(ID)[..], &b.iv(ID)[..]), (expected, expected));
    assert_ne!(early, expected);
}

#[test]
fn what_proves_nothing_moves_nothing() {
    let (mut a, mut b) = (cipher(Encryption::Aes128), cipher(Encryption::Aes128));
    let honest = a.seal(header(ID), &payloads(5));
    for length in [16, 32, 48] {
        // Opened, looked at, and not accepted.
        assert!(b.open(ID, &vec![0x55; length]).is_ok());
    }
    assert!(!b.knows(ID));
    assert_eq!(open(&mut b, &honest), Ok(payloads(5)));
    assert!(b.open(ID, &[0x55; 16]).is_ok());
    let next = a.seal(header(ID), &payloads(6));
    assert_eq!(open(&mut b, &next), Ok(payloads(6)));
}

#[test]
fn a_message_that_comes_again_is_known_by_its_octets() {
    let (mut a, mut b) = (cipher(Encryption::Aes128), cipher(Encryption::Aes128));
    let message = a.seal(header(ID), &payloads(5));
    assert_eq!(open(&mut b, &message), Ok(payloads(5)));
    let answer = b.seal(header(ID), &payloads(6));
    assert_eq!(open(&mut b, &message), Err(OpenError::Repeated));
    assert_eq!(open(&mut a, &answer), Ok(payloads(6)));
}

#[test]
fn an_exchange_that_is_over_is_not_begun_again() {
    let (mut a, mut b) = (cipher(Encryption::Aes128), cipher(Encryption::Aes128));
    let message = a.seal(header(ID), &payloads(5));
    assert_eq!(open(&mut b, &message), Ok(payloads(5)));
    assert!(b.knows(ID));
    b.finish(ID);
    assert!(b.knows(ID));
    assert_eq!(open(&mut b, &message), Err(OpenError::Spent));
    b.finish(PHASE_ONE);
    assert!(b.open(PHASE_ONE, &[0; 16]).is_ok());
    // Of an exchange that never was, nothing is remembered.
    b.finish(ID + 1);
    assert!(!b.knows(ID + 1));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut cipher = cipher(Encryption::Aes128);
    let last = (MAX_CHAINS + MAX_SPENT) as u32;
    for id in 1..=last {
        assert!(cipher.open(u32::MAX, &[0; 16]).is_ok());
        assert_eq!(cipher.is_worn(), cipher.spent.len() >= WORN);
        cipher.seal(header(id), &payloads(1));
    }
    assert_eq!((cipher.chains.len(), cipher.begun.len()), (MAX_CHAINS + 1, MAX_CHAINS));
    assert_eq!(cipher.spent.len(), MAX_SPENT);
    assert!(
        cipher.knows(last) && cipher.knows(1),
        "what was used once is known as long as anything is taken"
    );
    assert_eq!(cipher.open(u32::MAX, &[0; 16]).err(), Some(OpenError::Exhausted));
    assert!(cipher.open(last, &[0; 16]).is_ok(), "what is under way goes on");
    cipher.seal(header(last + 1), &payloads(1));
    assert_eq!(cipher.spent.len(), MAX_SPENT);
}

#[test]
fn only_whole_blocks_are_decrypted() {
    let cipher = cipher(Encryption::Aes128);
    for length in 0..50 {
        let opened = cipher.open(ID, &vec![0; length]).map(|_| ());
        let whole = length > 0 && length % 16 == 0;
        assert_eq!(opened, if whole { Ok(()) } else { Err(OpenError::Length) }, "{length}");
    }
}

#[test]
fn messages_are_padded_with_zeros_to_whole_blocks() {
    let mut a = cipher(Encryption::TripleDes);
    for length in 0..30 {
        let message = a.seal(header(ID), &payloads(length));
        let chain = 4 + length + 20;
        assert_eq!(message.len(), 28 + chain.next_multiple_of(8));
    }
}

#[test]
fn keys_and_content_are_not_printed() {
    let mut cipher = cipher(Encryption::Aes128);
    let message = cipher.seal(header(ID), &payloads(5));
    let opened = cipher.open(PHASE_ONE, &message[28..]).unwrap();
    assert_eq!(
        format!("{cipher:?} {opened:?}"),
        "MessageCipher(aes128, 2 exchanges, ..) Opened(0x00000000, ..)"
    );
}
