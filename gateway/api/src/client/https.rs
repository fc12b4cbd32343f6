//! A gateway on another machine.

use super::ClientError;
use crate::server::fingerprint;
use hyper::{Uri, header, http::request::Builder};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use std::{fmt, path::PathBuf, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use zeroize::Zeroizing;

/// What makes the other end the gateway that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its certificate is of one of these authorities: a file of PEM.
    Authorities(PathBuf),
    /// Its certificate has this fingerprint (SHA-256), as hexadecimal digits with colons or without.
    Fingerprint(String),
}

/// A gateway by its address.
#[derive(Clone)]
pub struct Remote {
    host: String,
    port: u16,
    token: Zeroizing<String>,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote(https://{})", self.authority())
    }
}

impl Remote {
    /// Takes `https://HOST` or `https://HOST:PORT` apart, and prepares TLS; nothing is opened.
    ///
    /// # Errors
    /// [`ClientError::Place`]: one of the arguments cannot be used.
    pub fn new(url: &str, token: Zeroizing<String>, trust: &Trust) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Place(format!("{url}: {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("is no address, as in https://192.0.2.1:8443"))?;
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("has to be https://HOST or https://HOST:PORT"));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong("has no host name or address"))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| ClientError::Place(e.to_string()))?;
        let config = match trust {
            Trust::Authorities(file) => {
                let unusable = |why: String| ClientError::Place(format!("{}: {why}", file.display()));
                let mut roots = RootCertStore::empty();
                let certificates =
                    CertificateDer::pem_file_iter(file).map_err(|e| unusable(e.to_string()))?;
                roots.add_parsable_certificates(certificates.flatten());
                if roots.is_empty() {
                    return Err(unusable("there is no certificate in it".into()));
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Trust::Fingerprint(text) => {
                let wanted: String = text.chars().filter(|c| *c != ':').collect::<String>().to_uppercase();
                if wanted.len() != 64 || !wanted.chars().all(|c| c.is_ascii_hexdigit()) {
                    let words = format!("{text:?} is no fingerprint: SHA-256 has 64 hexadecimal digits");
                    return Err(ClientError::Place(words));
                }
                let pinned = Arc::new(Pinned { wanted, provider });
                builder.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth()
            }
        };
        let port = uri.port_u16().unwrap_or(443);
        Ok(Remote { host, port, token, tls: TlsConnector::from(Arc::new(config)), name })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The headers that go with every request.
    pub(super) fn headed(&self, request: Builder) -> Builder {
        let bearer = Zeroizing::new(format!("Bearer {}", self.token.as_str()));
        let value = header::HeaderValue::from_str(&bearer).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let request = request.header(header::HOST, self.authority());
        match value {
            Ok(value) => request.header(header::AUTHORIZATION, value),
            // What cannot be in a header is no token of any gateway: the answer says so.
            Err(_) => request,
        }
    }

    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, ClientError> {
        let failed =
            |source| ClientError::Unreachable { place: format!("https://{}", self.authority()), source };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        self.tls.connect(self.name.clone(), stream).await.map_err(failed)
    }
}

/// Trusts the one certificate that has the fingerprint, whatever else it says.
#[derive(Debug)]
struct Pinned {
    /// 64 hexadecimal digits.
    wanted: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = fingerprint(end_entity);
        if found.replace(':', "") == self.wanted {
            return Ok(ServerCertVerified::assertion());
        }
        tracing::error!("the certificate has the fingerprint {found}, not the one that is expected");
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
