#!/usr/bin/env python3
"""Writes packets.txt: ESP and AH packets as scapy's IPsec layer makes them, to hold ours against.

    pip install scapy cryptography
    python3 scapy_packets.py > packets.txt

Every suite, outer IP version and encapsulation occurs with and without extended sequence numbers, and with inner IPv4
and inner IPv6 packets. Scapy is given the IV that the engine derives from the sequence number, so that the packets can
be compared byte by byte in both directions.
"""

import itertools
import struct
import warnings

warnings.filterwarnings("ignore")

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP, SecurityAssociation
from scapy.packet import Raw

# Our name of a cipher: scapy's, bytes of the key.
CIPHERS = {
    "Null": ("NULL", 0),
    "DesCbc": ("DES", 8),
    "TripleDesCbc": ("3DES", 24),
    **{f"Aes{bits}Cbc": ("AES-CBC", bits // 8) for bits in (128, 192, 256)},
    **{f"Aes{bits}Gcm16": ("AES-GCM", bits // 8) for bits in (128, 192, 256)},
    "ChaCha20Poly1305": ("CHACHA20-POLY1305", 32),
}
AUTHS = {
    "None": ("NULL", 0),
    "HmacMd5_96": ("HMAC-MD5-96", 16),
    "HmacSha1_96": ("HMAC-SHA1-96", 20),
    "HmacSha256_128": ("SHA2-256-128", 32),
    "HmacSha384_192": ("SHA2-384-192", 48),
    "HmacSha512_256": ("SHA2-512-256", 64),
}
AEADS = ("Aes128Gcm16", "Aes192Gcm16", "Aes256Gcm16", "ChaCha20Poly1305")
SUITES = (
    [("Esp", cipher, "None") for cipher in AEADS]
    + [("Esp", f"Aes{bits}Cbc", auth) for bits in (128, 192, 256) for auth in ("HmacSha1_96", "HmacSha256_128")]
    + [
        ("Esp", "Aes128Cbc", "HmacMd5_96"),
        ("Esp", "Aes192Cbc", "HmacSha384_192"),
        ("Esp", "Aes256Cbc", "HmacSha512_256"),
        ("Esp", "DesCbc", "HmacMd5_96"),
        ("Esp", "DesCbc", "HmacSha1_96"),
        ("Esp", "TripleDesCbc", "HmacSha1_96"),
        ("Esp", "TripleDesCbc", "HmacSha256_128"),
        ("Esp", "Null", "HmacSha256_128"),
    ]
    + [("Ah", "Null", auth) for auth in list(AUTHS)[1:]]
)


def numbered(length, first):
    return bytes((first + i) % 256 for i in range(length))


def iv_of(cipher, key, seq):
    if cipher == "Null":
        return b""
    if cipher in AEADS:
        return struct.pack(">Q", seq)
    if "Aes" in cipher:
        ecb, block = algorithms.AES(key), struct.pack(">QQ", 0, seq)
    else:
        ecb, block = TripleDES(key * (24 // len(key))), struct.pack(">Q", seq)
    return Cipher(ecb, modes.ECB()).encryptor().update(block)


def main():
    print("# Made by scapy_packets.py: protocol cipher auth key salt auth_key spi seq esn inner outer")
    cases = itertools.product(SUITES, (False, True), (False, True), (False, True))
    for n, ((protocol, cipher, auth), outer_v6, udp, inner_v6) in enumerate(cases):
        esn = inner_v6 != udp
        # AH has no encapsulation; what would be one more is the same again with the other kind of number.
        udp = udp and protocol == "Esp"
        (cipher_name, key_len), (auth_name, auth_len) = CIPHERS[cipher], AUTHS[auth]
        key, salt = numbered(key_len, n + 1), numbered(4, 0xA0)
        auth_key = numbered(auth_len, 0x40 + n)
        seq = (n << 32) + 0x01020304 + n if esn else 0xF0000000 + n
        spi, traffic_class = 0x10000 + n, n * 4 % 256 + n % 3

        payload = UDP(sport=1000 + n, dport=53) / Raw(numbered(n * 5 % 41, 0))
        if inner_v6:
            inner = IPv6(src="2001:db8:1::1", dst="2001:db8:2::2", tc=traffic_class, hlim=63) / payload
        else:
            inner = IP(src="10.1.0.2", dst="10.2.0.2", tos=traffic_class, ttl=63, id=n) / payload
        inner = inner.__class__(bytes(inner))
        if outer_v6:
            tunnel = IPv6(src="2001:db8::1", dst="2001:db8:ffff::2", tc=traffic_class, hlim=64)
        else:
            tunnel = IP(src="192.0.2.1", dst="198.51.100.2", tos=traffic_class, ttl=64, id=0, flags="DF")

        algorithms_of = {"auth_algo": auth_name, "auth_key": auth_key or None}
        if protocol == "Esp":
            algorithms_of |= {"crypt_algo": cipher_name, "crypt_key": (key + salt if cipher in AEADS else key) or None}
        sa = SecurityAssociation(
            ESP if protocol == "Esp" else AH,
            spi=spi,
            tunnel_header=tunnel,
            nat_t_header=UDP(sport=4500, dport=61000) if udp else None,
            **algorithms_of,
        )
        numbers = {"seq_num": seq & 0xFFFFFFFF, "esn_en": esn, "esn": seq >> 32 if esn else 0}
        if protocol == "Esp":
            numbers["iv"] = iv_of(cipher, key, seq)
        outer = tunnel.__class__(bytes(sa.encrypt(inner, **numbers)))
        if udp and outer_v6:
            # Scapy writes 0, which RFC 8200 section 8.1 forbids to senders that have not agreed on it.
            del outer[UDP].chksum
            outer = IPv6(bytes(outer))
        fields = [key.hex() or "-", salt.hex(), auth_key.hex() or "-", f"{spi:x}", f"{seq:x}", str(esn).lower()]
        print(protocol, cipher, auth, *fields, bytes(inner).hex(), bytes(outer).hex())


if __name__ == "__main__":
    main()
