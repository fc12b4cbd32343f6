//! Entries of SAD_CONFIG from a negotiated pair.

use super::Limits;
use adit_ike::{ChildSa, DirectionKeys, Encryption, Integrity, Protocol, TunnelId};
use adit_maps::sa::{SadConfig, auth, cipher, direction, flags};

/// The IP protocol number.
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Esp => 50,
        Protocol::Ah => 51,
    }
}

/// The inbound and the outbound entry; the caller wipes both. `None` when a key has another length than its algorithm's.
pub(super) fn pair(
    tunnel: TunnelId,
    slot: u32,
    child: &ChildSa,
    limits: Limits,
    selectors: u32,
) -> Option<[SadConfig; 2]> {
    let mut common = SadConfig::free();
    common.tunnel = tunnel.0;
    common.policy = slot;
    common.selectors = selectors;
    common.local_selectors = u16::try_from(child.local_ts.len()).ok()?;
    common.remote_selectors = u16::try_from(child.remote_ts.len()).ok()?;
    common.protocol = number(child.protocol);
    common.cipher = cipher_in(child)?;
    common.auth = auth_in(child);
    common.flags = if child.esn { flags::ESN } else { 0 };
    common.local = child.local.into();
    common.mtu = limits.mtu;
    common.mss = limits.mss;
    common.peer = child.peer.into();
    (common.local_port, common.peer_port) = child.encapsulation.unwrap_or_default();
    if child.encapsulation.is_some() {
        common.flags |= flags::UDP;
    }
    let mut inbound = SadConfig { direction: direction::INBOUND, ..common };
    inbound.replay_window = limits.replay_window.into();
    let mut outbound = SadConfig { direction: direction::OUTBOUND, ..common };
    if set_keys(&mut inbound, child, &child.inbound) && set_keys(&mut outbound, child, &child.outbound) {
        return Some([inbound, outbound]);
    }
    inbound.wipe();
    outbound.wipe();
    None
}

/// Whether an entry that was found in the maps, its keys wiped, is a tunnel's SA of this pair. Where the peer is may be
/// another than the pair knows.
pub(super) fn is_of(entry: &SadConfig, tunnel: TunnelId, child: &ChildSa, inbound: bool) -> bool {
    let (spi, way) = match inbound {
        true => (child.inbound.spi, direction::INBOUND),
        false => (child.outbound.spi, direction::OUTBOUND),
    };
    (entry.tunnel, entry.spi, entry.direction) == (tunnel.0, spi, way)
        && (entry.protocol, entry.local) == (number(child.protocol), child.local.into())
        && Some(entry.cipher) == cipher_in(child)
        && entry.auth == auth_in(child)
        && (entry.flags & flags::ESN != 0) == child.esn
        && usize::from(entry.local_selectors) == child.local_ts.len()
        && usize::from(entry.remote_selectors) == child.remote_ts.len()
}

fn cipher_in(child: &ChildSa) -> Option<u8> {
    match child.encryption {
        None => (child.protocol == Protocol::Ah).then_some(cipher::NONE),
        Some(encryption) => Some(cipher_of(encryption)),
    }
}

fn auth_in(child: &ChildSa) -> u8 {
    match child.integrity {
        None => auth::NONE,
        Some(Integrity::Md5) => auth::HMAC_MD5_96,
        Some(Integrity::Sha1) => auth::HMAC_SHA1_96,
        Some(Integrity::Sha256) => auth::HMAC_SHA256_128,
        Some(Integrity::Sha384) => auth::HMAC_SHA384_192,
        Some(Integrity::Sha512) => auth::HMAC_SHA512_256,
    }
}

fn cipher_of(encryption: Encryption) -> u8 {
    match encryption {
        Encryption::Null => cipher::NULL,
        Encryption::Des => cipher::DES_CBC,
        Encryption::TripleDes => cipher::TRIPLE_DES_CBC,
        Encryption::Aes128 => cipher::AES128_CBC,
        Encryption::Aes192 => cipher::AES192_CBC,
        Encryption::Aes256 => cipher::AES256_CBC,
        Encryption::Aes128Gcm16 => cipher::AES128_GCM16,
        Encryption::Aes192Gcm16 => cipher::AES192_GCM16,
        Encryption::Aes256Gcm16 => cipher::AES256_GCM16,
        Encryption::ChaCha20Poly1305 => cipher::CHACHA20_POLY1305,
    }
}

fn set_keys(entry: &mut SadConfig, child: &ChildSa, keys: &DirectionKeys) -> bool {
    let auth_len = child.integrity.map_or(0, Integrity::key_len);
    let key_len = child.encryption.map_or(0, Encryption::key_len);
    if keys.encryption_key.len() != key_len || keys.integrity_key.len() != auth_len {
        return false;
    }
    entry.spi = keys.spi;
    entry.salt = keys.salt;
    entry.key[..keys.encryption_key.len()].copy_from_slice(&keys.encryption_key);
    entry.auth_key[..auth_len].copy_from_slice(&keys.integrity_key);
    true
}
