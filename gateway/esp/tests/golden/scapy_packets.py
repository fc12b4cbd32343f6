#!/usr/bin/env python3
"""Writes packets.txt: ESP packets as scapy's IPsec layer makes them, to hold ours against.

    pip install scapy cryptography
    python3 scapy_packets.py > packets.txt

Every combination of algorithms, outer IP version and encapsulation occurs with an inner IPv4 and an inner IPv6
packet, one of them with extended sequence numbers. Scapy is given the IV that the engine derives from the sequence
number, so that the packets can be compared byte by byte in both directions.
"""

import itertools
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

SUITES = [(f"Aes{bits}Gcm16", "None", bits // 8) for bits in (128, 192, 256)] + [
    (f"Aes{bits}Cbc", auth, bits // 8) for bits in (128, 192, 256) for auth in ("HmacSha1_96", "HmacSha256_128")
]
SCAPY_AUTH = {"None": ("NULL", 0), "HmacSha1_96": ("HMAC-SHA1-96", 20), "HmacSha256_128": ("SHA2-256-128", 32)}


def numbered(length, first):
    return bytes((first + i) % 256 for i in range(length))


def iv_of(cipher, key, seq):
    if "Gcm" in cipher:
        return struct.pack(">Q", seq)
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return ecb.update(struct.pack(">QQ", 0, seq))


def main():
    print("# Made by scapy_packets.py: cipher auth key salt auth_key spi seq esn inner outer")
    for n, (suite, outer_v6, udp, inner_v6) in enumerate(
        itertools.product(SUITES, (False, True), (False, True), (False, True))
    ):
        cipher, auth, key_len = suite
        key, salt = numbered(key_len, n + 1), numbered(4, 0xA0)
        auth_name, auth_len = SCAPY_AUTH[auth]
        auth_key = numbered(auth_len, 0x40 + n)
        esn = inner_v6 != udp
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

        sa = SecurityAssociation(
            ESP,
            spi=spi,
            crypt_algo="AES-GCM" if "Gcm" in cipher else "AES-CBC",
            crypt_key=key + salt if "Gcm" in cipher else key,
            auth_algo=auth_name,
            auth_key=auth_key or None,
            tunnel_header=tunnel,
            nat_t_header=UDP(sport=4500, dport=61000) if udp else None,
        )
        sealed = sa.encrypt(
            inner, seq_num=seq & 0xFFFFFFFF, iv=iv_of(cipher, key, seq), esn_en=esn, esn=seq >> 32 if esn else 0
        )
        outer = tunnel.__class__(bytes(sealed))
        if udp and outer_v6:
            # Scapy writes 0, which RFC 8200 section 8.1 forbids to senders that have not agreed on it.
            del outer[UDP].chksum
            outer = IPv6(bytes(outer))
        fields = [key.hex(), salt.hex(), auth_key.hex() or "-", f"{spi:x}", f"{seq:x}", str(esn).lower()]
        print(cipher, auth, *fields, bytes(inner).hex(), bytes(outer).hex())


if __name__ == "__main__":
    main()
