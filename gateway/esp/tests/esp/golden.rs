//! Packets made by scapy (`tests/golden/scapy_packets.py`): opened by us, and made by us byte for byte.

use crate::setup::{SUITES, States, engine, open, outer, seal};
use adit_esp::{AUTH_KEY_LEN, Auth, Cipher, KEY_LEN, Outcome, Protocol, SaParams};
use std::sync::atomic::Ordering::Relaxed;

const PACKETS: &str = include_str!("../golden/packets.txt");

fn unhex(digits: &str) -> Vec<u8> {
    let value = |i: usize| u8::from_str_radix(&digits[i..i + 2], 16).unwrap();
    (0..digits.len() & !1).step_by(2).map(value).collect()
}

fn padded<const N: usize>(key: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded[..key.len()].copy_from_slice(key);
    padded
}

#[test]
fn scapy_and_we_agree_byte_for_byte() {
    let mut count = 0;
    for line in PACKETS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [ipsec, cipher, auth, key, salt, auth_key, spi, seq, esn, inner, sealed] = fields[..] else {
            panic!("eleven fields a line: {line}")
        };
        let (inner, sealed) = (unhex(inner), unhex(sealed));
        let v6 = sealed[0] >> 4 == 6;
        let protocol = if v6 { sealed[6] } else { sealed[9] };
        let seq = u64::from_str_radix(seq, 16).unwrap();
        let params = SaParams {
            generation: 1,
            spi: u32::from_str_radix(spi, 16).unwrap(),
            protocol: if ipsec == "Ah" { Protocol::Ah } else { Protocol::Esp },
            cipher: Cipher::ALL.into_iter().find(|c| format!("{c:?}") == cipher).unwrap(),
            auth: Auth::ALL.into_iter().find(|a| format!("{a:?}") == auth).unwrap(),
            key: padded::<KEY_LEN>(&unhex(key)),
            salt: unhex(salt).try_into().unwrap(),
            auth_key: padded::<AUTH_KEY_LEN>(&unhex(auth_key)),
            esn: esn == "true",
            replay_window: 64,
            outer: outer(v6, (protocol == 17).then_some((4500, 61_000))),
        };
        let mut engine = engine([&params]);
        let states = States::new(1);
        states.top(0).store(seq - 1, Relaxed);

        assert_eq!(seal(&mut engine, 0, seq, &inner), sealed, "{params:?}");
        let (outcome, opened, _) = open(&mut engine, &states, 0, &sealed);
        assert_eq!(outcome, Outcome::Done, "{params:?}");
        assert_eq!(opened, inner, "{params:?}");
        count += 1;
    }
    assert_eq!(count, SUITES.len() * 2 * 2 * 2, "every combination is there");
}
