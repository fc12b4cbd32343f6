//! Keys of SAs in the words of Wireshark: lines of its table `esp_sa`, by which it opens sealed packets.
//!
//! pcapng has blocks for secrets, but none of a kind for ESP (draft-ietf-opsawg-pcapng section 4.7), so keys go beside a capture.

use adit_maps::{
    decode::protocol,
    sa::{SadConfig, auth, cipher},
    user::Sad,
};
use std::{collections::HashSet, fmt::Write, net::IpAddr};
use zeroize::Zeroizing;

/// The SAs of a tunnel whose keys somebody wants, and which of them he has.
pub(crate) struct Keys<'a> {
    sad: &'a Sad,
    tunnel: u32,
    /// Index and generation.
    told: HashSet<(u32, u32)>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(sad: &'a Sad, tunnel: u32) -> Self {
        Keys { sad, tunnel, told: HashSet::new() }
    }

    /// Lines for the SAs that have come since the last call; at first, for all.
    pub(crate) fn new_lines(&mut self) -> Zeroizing<String> {
        let mut lines = Zeroizing::new(String::new());
        for index in 0..self.sad.capacity() {
            let generation = self.sad.generation(index);
            if generation == 0 || self.told.contains(&(index, generation)) {
                continue;
            }
            // One that changes at this moment is there the next time.
            let Some(mut config) = self.sad.read(index) else { continue };
            self.told.insert((index, config.generation));
            if config.tunnel == self.tunnel
                && let Some(new) = line(&config)
            {
                lines = Zeroizing::new([lines.as_str(), new.as_str()].concat());
            }
            config.wipe();
        }
        lines
    }
}

/// An SA's line; `None` for AH, which hides nothing, and for what Wireshark has no word for.
fn line(config: &SadConfig) -> Option<Zeroizing<String>> {
    if config.protocol != protocol::ESP {
        return None;
    }
    // An AEAD's key goes with its salt (RFC 4106 section 8.1, RFC 7634 section 2).
    let (encryption, key, salt) = match config.cipher {
        cipher::NULL => ("NULL", 0, 0),
        cipher::DES_CBC => ("DES-CBC [RFC2405]", 8, 0),
        cipher::TRIPLE_DES_CBC => ("TripleDES-CBC [RFC2451]", 24, 0),
        cipher::AES128_CBC => ("AES-CBC [RFC3602]", 16, 0),
        cipher::AES192_CBC => ("AES-CBC [RFC3602]", 24, 0),
        cipher::AES256_CBC => ("AES-CBC [RFC3602]", 32, 0),
        cipher::AES128_GCM16 => ("AES-GCM with 16 octet ICV [RFC4106]", 16, 4),
        cipher::AES192_GCM16 => ("AES-GCM with 16 octet ICV [RFC4106]", 24, 4),
        cipher::AES256_GCM16 => ("AES-GCM with 16 octet ICV [RFC4106]", 32, 4),
        cipher::CHACHA20_POLY1305 => ("ChaCha20 with Poly1305 [RFC7634]", 32, 4),
        _ => return None,
    };
    let (authentication, auth_key) = match config.auth {
        auth::NONE => ("NULL", 0),
        auth::HMAC_MD5_96 => ("HMAC-MD5-96 [RFC2403]", 16),
        auth::HMAC_SHA1_96 => ("HMAC-SHA-1-96 [RFC2404]", 20),
        auth::HMAC_SHA256_128 => ("HMAC-SHA-256-128 [RFC4868]", 32),
        auth::HMAC_SHA384_192 => ("HMAC-SHA-384-192 [RFC4868]", 48),
        auth::HMAC_SHA512_256 => ("HMAC-SHA-512-256 [RFC4868]", 64),
        _ => return None,
    };
    let [local, peer] = [config.local, config.peer].map(IpAddr::from);
    let (source, destination) =
        if config.direction == adit_maps::sa::direction::OUTBOUND { (local, peer) } else { (peer, local) };
    let version = if local.is_ipv4() { "IPv4" } else { "IPv6" };
    // Long enough that it is not moved, for what is moved is not wiped.
    let mut line = Zeroizing::new(String::with_capacity(LONGEST));
    let _ = write!(line, "\"{version}\",\"{source}\",\"{destination}\",\"0x{:08x}\"", config.spi);
    let _ = write!(line, ",\"{encryption}\",\"");
    hexadecimal(&mut line, &[&config.key[..key], &config.salt[..salt]]);
    let _ = write!(line, "\",\"{authentication}\",\"");
    hexadecimal(&mut line, &[&config.auth_key[..auth_key]]);
    line.push_str("\"\n");
    Some(line)
}

/// Bytes of a line at most: two IPv6 addresses of 39, keys of 64 and 36 bytes, names below 40, and what is between them.
const LONGEST: usize = 512;

/// Digits behind `0x`; nothing for no bytes.
fn hexadecimal(line: &mut String, parts: &[&[u8]]) {
    if parts.iter().any(|part| !part.is_empty()) {
        line.push_str("0x");
    }
    for byte in parts.iter().copied().flatten() {
        for digit in [byte >> 4, byte & 15] {
            line.push(char::from_digit(digit.into(), 16).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_maps::{address::Address, sa::direction};

    fn config(cipher: u8, auth: u8) -> SadConfig {
        SadConfig {
            spi: 0xc0de,
            direction: direction::INBOUND,
            protocol: protocol::ESP,
            cipher,
            auth,
            local: Address::v4([192, 0, 2, 1]),
            peer: Address::v4([198, 51, 100, 1]),
            salt: [0xaa, 0xbb, 0xcc, 0xdd],
            key: [7; 32],
            auth_key: [9; 64],
            ..SadConfig::free()
        }
    }

    #[test]
    fn a_line_names_the_sa_as_its_packets_do() {
        let line = line(&config(cipher::AES128_GCM16, auth::NONE)).unwrap();
        let key = "07".repeat(16);
        assert_eq!(
            *line,
            format!(
                "\"IPv4\",\"198.51.100.1\",\"192.0.2.1\",\"0x0000c0de\",\"AES-GCM with 16 octet ICV \
                 [RFC4106]\",\"0x{key}aabbccdd\",\"NULL\",\"\"\n"
            )
        );
    }

    #[test]
    fn the_longest_line_fits_and_ah_has_none() {
        let mut longest = config(cipher::AES256_CBC, auth::HMAC_SHA512_256);
        (longest.local, longest.peer) = (Address([0xfe; 16]), Address([0xfd; 16]));
        let text = line(&longest).unwrap();
        assert!(
            text.len() <= LONGEST && text.ends_with(&format!("\"0x{}\"\n", "09".repeat(64))),
            "{}",
            *text
        );
        assert!(line(&SadConfig { protocol: protocol::AH, ..longest }).is_none());
    }
}
