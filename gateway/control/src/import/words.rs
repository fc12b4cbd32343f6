//! Words of strongSwan and of the clouds, as what they mean here.

use super::{ImportError, draft::Suite};
use adit_ike::{Encryption, Group, Id, Integrity, Prf};
use zeroize::Zeroizing;

/// Algorithms of proposals with commas between them, as `aes256-sha256-modp2048`: all of them together, for Adit offers lists.
///
/// # Errors
/// A word that Adit has nothing for.
pub(super) fn proposals(text: &str, line: usize) -> Result<Suite, ImportError> {
    let mut all = Suite::default();
    for proposal in text.trim_end_matches('!').split(',').map(str::trim) {
        let mut suite = Suite::default();
        for word in proposal.split('-').map(|w| w.trim().to_ascii_lowercase()).filter(|w| !w.is_empty()) {
            take(&mut suite, &word)
                .map_err(|()| ImportError::new(line, format!("{word:?} is no algorithm that Adit has")))?;
        }
        if suite.prf.is_empty() {
            // Where a proposal names none it is the integrity algorithm's.
            suite.prf = suite.integrity.iter().filter_map(|i| i.to_string().parse().ok()).collect();
        }
        suite.encryption.into_iter().for_each(|e| push(&mut all.encryption, e));
        suite.integrity.into_iter().for_each(|i| push(&mut all.integrity, i));
        suite.prf.into_iter().for_each(|p| push(&mut all.prf, p));
        suite.groups.into_iter().for_each(|g| push(&mut all.groups, g));
        suite.additional.into_iter().for_each(|g| push(&mut all.additional, g));
        all.esn |= suite.esn;
    }
    Ok(all)
}

fn push<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}

fn take(suite: &mut Suite, word: &str) -> Result<(), ()> {
    if let Some(encryption) = encryption(word) {
        push(&mut suite.encryption, encryption);
    } else if let Some(integrity) = integrity(word) {
        push(&mut suite.integrity, integrity);
    } else if let Some(prf) = word.strip_prefix("prf").and_then(integrity) {
        push(&mut suite.prf, prf.to_string().parse::<Prf>().map_err(|_| ())?);
    } else if let Some(group) = group(word) {
        push(&mut suite.groups, group);
    } else {
        match word {
            "esn" => suite.esn = true,
            // The default, or of no meaning beside a list.
            "noesn" | "default" => {}
            "ke1_mlkem768" => push(&mut suite.additional, Group::MlKem768),
            _ => return Err(()),
        }
    }
    Ok(())
}

/// By strongSwan's name, AWS's (`aes-128-cbc`) or Alibaba's.
pub(super) fn encryption(word: &str) -> Option<Encryption> {
    Some(match word {
        "aes" | "aes128" | "aes-128-cbc" => Encryption::Aes128,
        "aes192" | "aes-192-cbc" => Encryption::Aes192,
        "aes256" | "aes-256-cbc" => Encryption::Aes256,
        "aes128gcm" | "aes128gcm16" | "aes128gcm128" | "aes-128-gcm-16" | "aes128-gcm-16" => {
            Encryption::Aes128Gcm16
        }
        "aes192gcm" | "aes192gcm16" | "aes192gcm128" => Encryption::Aes192Gcm16,
        "aes256gcm" | "aes256gcm16" | "aes256gcm128" | "aes-256-gcm-16" | "aes256-gcm-16" => {
            Encryption::Aes256Gcm16
        }
        "chacha20poly1305" => Encryption::ChaCha20Poly1305,
        "3des" => Encryption::TripleDes,
        "des" => Encryption::Des,
        "null" => Encryption::Null,
        _ => return None,
    })
}

/// By strongSwan's name, AWS's (`hmac-sha1-96`, `sha2-256`) or Alibaba's.
pub(super) fn integrity(word: &str) -> Option<Integrity> {
    Some(match word {
        "md5" => Integrity::Md5,
        "sha" | "sha1" | "hmac-sha1-96" => Integrity::Sha1,
        "sha256" | "sha2_256" | "sha2-256" | "hmac-sha2-256-128" | "hmac-sha2-256" => Integrity::Sha256,
        "sha384" | "sha2_384" | "sha2-384" | "hmac-sha2-384-192" | "hmac-sha2-384" => Integrity::Sha384,
        "sha512" | "sha2_512" | "sha2-512" | "hmac-sha2-512-256" | "hmac-sha2-512" => Integrity::Sha512,
        _ => return None,
    })
}

/// By strongSwan's name.
pub(super) fn group(word: &str) -> Option<Group> {
    let word = if word == "curve25519" { "x25519" } else { word };
    Group::ALL.into_iter().find(|g| g.to_string() == word)
}

/// A time as `8h`, `30m`, `90s` or seconds.
///
/// # Errors
/// It is none.
pub(super) fn seconds(text: &str, line: usize) -> Result<u64, ImportError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    let number = digits.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|_| unit > 0);
    number.ok_or_else(|| ImportError::new(line, format!("{text:?} is no time, such as 30s, 5m, 8h")))
}

/// An identity as strongSwan writes it; `None` for any.
///
/// # Errors
/// A distinguished name, or nothing.
pub(super) fn id(text: &str, line: usize) -> Result<Option<Id>, ImportError> {
    if text == "%any" {
        return Ok(None);
    }
    let refused = || {
        ImportError::new(
            line,
            format!("{text:?} is no identity that Adit has: an address, a name, user@name, a key ID"),
        )
    };
    let plain = match text.strip_prefix("@#") {
        Some(digits) => format!("keyid:{digits}"),
        None => text.to_owned(),
    };
    let odd = plain.is_empty() || plain.contains(['=', '*', '%']) || plain.chars().any(char::is_control);
    if odd || plain.len() > 255 {
        return Err(refused());
    }
    plain.parse().map(Some).map_err(|_| refused())
}

/// A key as strongSwan writes it: as it is, or behind `0x` in hexadecimal, behind `0s` in Base64 digits.
///
/// # Errors
/// The digits are none, or what they mean is not text.
pub(super) fn secret(text: &str, line: usize) -> Result<Zeroizing<String>, ImportError> {
    let octets = match (text.strip_prefix("0x"), text.strip_prefix("0s")) {
        (Some(digits), _) => of_hexadecimal(digits),
        (_, Some(digits)) => of_base64(digits),
        _ => return Ok(Zeroizing::new(text.to_owned())),
    };
    let octets = octets.map(Zeroizing::new);
    let text = octets.as_ref().and_then(|octets| std::str::from_utf8(octets).ok());
    text.map(|text| Zeroizing::new(text.to_owned())).ok_or_else(|| {
        ImportError::new(line, "the encoded pre-shared key is not text, which Adit needs it to be")
    })
}

fn of_hexadecimal(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

/// RFC 4648 section 4.
fn of_base64(digits: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(digits.len());
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            octets.push((bits >> count) as u8);
        }
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_out_of_their_digits() {
        for (text, key) in
            [("plain", "plain"), ("0x616263", "abc"), ("0sYWJj", "abc"), ("0sYWJjZA==", "abcd")]
        {
            assert_eq!(secret(text, 1).unwrap().as_str(), key);
        }
        assert!(secret("0xff", 1).is_err() && secret("0x0", 1).is_err() && secret("0s*", 1).is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!((seconds("8h", 1), seconds("90", 1), seconds("2m", 1)), (Ok(28_800), Ok(90), Ok(120)));
        assert!(
            seconds("1y", 1).is_err()
                && seconds("", 1).is_err()
                && seconds("99999999999999999999d", 1).is_err()
        );
    }
}
