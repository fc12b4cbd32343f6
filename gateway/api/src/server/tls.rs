//! The certificate that HTTPS is served with: one that is given, or one of our own.

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::TlsAcceptor;

/// Where HTTPS gets its certificate.
#[derive(Clone, Debug)]
pub enum Identity {
    /// From files, as PEM: the chain, its own certificate first, and its key.
    Given {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Made at the first start and kept in this directory as `api.crt` and `api.key`. It is for these addresses and
    /// `localhost`; who connects knows it by its fingerprint.
    Own {
        /// The directory.
        directory: PathBuf,
        /// The addresses.
        addresses: Vec<IpAddr>,
    },
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// None can be made.
    #[error("no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not go together, or are of a kind that is not known.
    #[error("HTTPS cannot be served with this certificate and key: {0}")]
    Unusable(#[from] rustls::Error),
}

/// What a connection is accepted with, the fingerprint of the certificate, and whether that was made just now.
pub(super) fn acceptor(identity: &Identity) -> Result<(TlsAcceptor, String, bool), TlsError> {
    let (certificate, key, is_new) = match identity {
        Identity::Given { certificate, key } => (certificate.clone(), key.clone(), false),
        Identity::Own { directory, addresses } => own(directory, addresses)?,
    };
    let content = |path: &Path, e: rustls::pki_types::pem::Error| match e {
        rustls::pki_types::pem::Error::Io(source) => TlsError::File { path: path.to_owned(), source },
        e => TlsError::Content { path: path.to_owned(), why: e.to_string() },
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect)
        .map_err(|e| content(&certificate, e))?;
    let Some(leaf) = chain.first() else {
        return Err(TlsError::Content { path: certificate, why: "there is no certificate in it".into() });
    };
    let fingerprint = fingerprint(leaf);
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|e| content(&key, e))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), fingerprint, is_new))
}

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` writes it.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let octets: Vec<_> = Sha256::digest(certificate).iter().map(|octet| format!("{octet:02X}")).collect();
    octets.join(":")
}

/// Our own certificate and key: those that are there, or new ones, and whether they are.
fn own(directory: &Path, addresses: &[IpAddr]) -> Result<(PathBuf, PathBuf, bool), TlsError> {
    let (certificate, key) = (directory.join("api.crt"), directory.join("api.key"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let there = [&certificate, &key].map(|path| path.try_exists().map_err(failed(path)));
    if let [Ok(true), Ok(true)] = there {
        return Ok((certificate, key, false));
    }
    let mut names: Vec<_> = addresses.iter().filter(|a| !a.is_unspecified()).map(IpAddr::to_string).collect();
    names.push("localhost".into());
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "Adit");
    let pair = KeyPair::generate()?;
    let made = params.self_signed(&pair)?;
    // The certificate last: a crash between the two makes both again.
    let pem = zeroize::Zeroizing::new(pair.serialize_pem());
    replace(&key, pem.as_bytes()).map_err(failed(&key))?;
    replace(&certificate, made.pem().as_bytes()).map_err(failed(&certificate))?;
    Ok((certificate, key, true))
}

/// Puts a file of mode 0600 in the place of another, if there is one; a crash leaves one of the two.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let making = path.with_extension("new");
    // Left over from a process that ended between the two steps.
    let _ = fs::remove_file(&making);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&making)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&making, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn our_own_certificate_is_made_once_and_kept_to_ourselves() {
        let directory = std::env::temp_dir().join(format!("adit-tls-{}", std::process::id()));
        let identity =
            Identity::Own { directory: directory.clone(), addresses: vec!["192.0.2.1".parse().unwrap()] };
        let (_, first, is_new) = acceptor(&identity).unwrap();
        assert!(is_new && !acceptor(&identity).unwrap().2);
        assert_eq!(first.len(), 95, "{first}");
        assert_eq!(acceptor(&identity).unwrap().1, first);
        let mode = fs::metadata(directory.join("api.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (certificate, key) = (directory.join("api.crt"), directory.join("api.key"));
        assert_eq!(acceptor(&Identity::Given { certificate, key: key.clone() }).unwrap().1, first);
        let swapped = acceptor(&Identity::Given { certificate: key.clone(), key });
        assert!(swapped.is_err_and(|e| e.to_string().contains("api.key")));
        fs::remove_dir_all(directory).unwrap();
    }
}
