//! Cookies (RFC 7296 section 2.6): proof that an initiator receives at its address, without any state here.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{algorithm, crypto::prf::prf};

/// After how long another secret makes the cookies; those of the last one are taken until the next change.
const ROTATION: Duration = Duration::from_secs(60);

/// The secrets of which cookies are made.
pub(crate) struct Cookies {
    version: u8,
    current: Zeroizing<[u8; 32]>,
    previous: Zeroizing<[u8; 32]>,
    since: Option<Instant>,
}

impl Cookies {
    pub(crate) fn new(rng: &mut dyn CryptoRng) -> Self {
        let mut secrets = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
        secrets.iter_mut().for_each(|secret| rng.fill_bytes(&mut **secret));
        let [current, previous] = secrets;
        Self { version: 0, current, previous, since: None }
    }

    /// The cookie that an initiator has to send back.
    pub(crate) fn make(
        &mut self,
        now: Instant,
        rng: &mut dyn CryptoRng,
        peer: SocketAddr,
        spi: u64,
        nonce: &[u8],
    ) -> Vec<u8> {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= ROTATION {
            self.previous = std::mem::replace(&mut self.current, Zeroizing::new([0; 32]));
            rng.fill_bytes(&mut *self.current);
            self.version = self.version.wrapping_add(1);
            self.since = Some(now);
        }
        cookie(&self.current, self.version, peer, spi, nonce)
    }

    /// Whether `came` is a cookie made here for this initiator.
    pub(crate) fn verify(&self, came: &[u8], peer: SocketAddr, spi: u64, nonce: &[u8]) -> bool {
        let Some(&version) = came.first() else { return false };
        let secret = match self.version.wrapping_sub(version) {
            0 => &self.current,
            1 => &self.previous,
            _ => return false,
        };
        cookie(secret, version, peer, spi, nonce).ct_eq(came).into()
    }
}

fn cookie(secret: &[u8; 32], version: u8, peer: SocketAddr, spi: u64, nonce: &[u8]) -> Vec<u8> {
    let address = match peer.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mac = prf(
        algorithm::Prf::Sha256,
        secret,
        &[nonce, &address, &peer.port().to_be_bytes(), &spi.to_be_bytes()],
    );
    [&[version][..], &mac].concat()
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    #[test]
    fn a_cookie_holds_for_one_initiator_and_two_rotations() {
        // Any instant serves as the origin; the clock is read once, by the test.
        #[allow(clippy::disallowed_methods, reason = "std offers no other way to come by an Instant")]
        let start = Instant::now();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut cookies = Cookies::new(&mut rng);
        let peer = "192.0.2.1:500".parse().unwrap();
        let cookie = cookies.make(start, &mut rng, peer, 7, b"nonce");
        assert!(cookies.verify(&cookie, peer, 7, b"nonce"));
        assert!(!cookies.verify(&cookie, peer, 8, b"nonce"));
        assert!(!cookies.verify(&cookie, "192.0.2.2:500".parse().unwrap(), 7, b"nonce"));
        assert!(!cookies.verify(&cookie[..5], peer, 7, b"nonce"));
        assert!(!cookies.verify(&[], peer, 7, b"nonce"));
        cookies.make(start + ROTATION, &mut rng, peer, 7, b"nonce");
        assert!(cookies.verify(&cookie, peer, 7, b"nonce"));
        cookies.make(start + 2 * ROTATION, &mut rng, peer, 7, b"nonce");
        assert!(!cookies.verify(&cookie, peer, 7, b"nonce"));
    }
}
