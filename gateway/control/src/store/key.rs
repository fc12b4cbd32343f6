//! The key under which secrets lie in the database.

use super::OpenError;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use getrandom::SysRng;
use rand_core::TryRng;
use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Its name in the directory of the data, or in that of systemd's credentials.
pub(super) const NAME: &str = "adit.key";
const OCTETS: usize = 32;
const NONCE: usize = 24;

/// The key. It is overwritten when it goes.
pub(super) struct Key {
    cipher: XChaCha20Poly1305,
    /// Where it came from.
    pub(super) path: PathBuf,
}

impl Key {
    /// Reads the key: systemd's credential if there is one, else the file beside the database. `None` where there is none.
    ///
    /// # Errors
    /// It is none, or others may read it.
    pub(super) fn read(dir: &Path, credentials: Option<&Path>) -> Result<Option<Key>, OpenError> {
        let paths = credentials.into_iter().chain([dir]).map(|dir| dir.join(NAME));
        for path in paths {
            let failed = |source| OpenError::File { path: path.clone(), source };
            let mut file = match fs::File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(OpenError::Mode { key: path, mode });
            }
            let mut octets = Zeroizing::new([0; OCTETS + 1]);
            let mut length = 0;
            while let n @ 1.. = file.read(&mut octets[length..]).map_err(failed)? {
                length += n;
            }
            return match length {
                OCTETS => Ok(Some(Key::new(&octets[..OCTETS], path))),
                _ => Err(OpenError::NotAKey(path)),
            };
        }
        Ok(None)
    }

    /// Makes a key, and keeps it in a file of mode 0600 beside the database.
    ///
    /// # Errors
    /// It cannot be kept.
    pub(super) fn make(dir: &Path) -> Result<Key, OpenError> {
        let path = dir.join(NAME);
        let failed = |source| OpenError::File { path: path.clone(), source };
        let mut octets = Zeroizing::new([0; OCTETS]);
        random(&mut *octets).map_err(failed)?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(&*octets).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok(Key::new(&*octets, path))
    }

    fn new(octets: &[u8], path: PathBuf) -> Key {
        let cipher = XChaCha20Poly1305::new_from_slice(octets).expect("it is as long as a key of the cipher");
        Key { cipher, path }
    }

    /// Seals a secret of `owner`: a nonce, and what the cipher makes of it.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub(super) fn seal(&self, owner: &str, secret: &[u8]) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let payload = Payload { msg: secret, aad: owner.as_bytes() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| io::Error::other("a secret is too long for the cipher"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what was sealed for the same `owner` with the same key; `None` where it was not.
    pub(super) fn open(&self, owner: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let payload = Payload { msg: sealed, aad: owner.as_bytes() };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
    }
}

/// Fills `out` from the system's generator.
///
/// # Errors
/// The kernel has none.
pub(super) fn random(out: &mut [u8]) -> io::Result<()> {
    SysRng.try_fill_bytes(out).map_err(io::Error::other)
}

/// A word of `length` characters of `alphabet`, each as likely as any other.
///
/// # Errors
/// As [`random`].
pub(super) fn random_word(alphabet: &[u8], length: usize) -> io::Result<Zeroizing<String>> {
    let mut word = Zeroizing::new(String::with_capacity(length));
    // Octets from there on would make the first characters likelier.
    let fair = 256 - 256 % alphabet.len();
    while word.len() < length {
        let mut octet = [0];
        random(&mut octet)?;
        if usize::from(octet[0]) < fair {
            word.push(char::from(alphabet[usize::from(octet[0]) % alphabet.len()]));
        }
    }
    Ok(word)
}
