//! TLS towards clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::Listen;

/// Why TLS cannot be offered.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A PEM file cannot be read, or has no certificate or key.
    #[error("{path}: {cause}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: rustls_pki_types::pem::Error,
    },
    /// A certificate comes without the key, or the other way round.
    #[error("a certificate and its key are needed, not one of them")]
    Half,
    /// The certificates in a file are unusable.
    #[error(transparent)]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// Certificate and key do not fit, or are unusable.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// The acceptor that `listen` asks for; `None` for plain TCP.
pub fn acceptor(listen: &Listen) -> Result<Option<TlsAcceptor>, TlsError> {
    let (certificate, key) = match (&listen.tls_certificate, &listen.tls_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(TlsError::Half),
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &listen.tls_client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority)?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| TlsError::Pem {
        path: key.clone(),
        cause,
    })?;
    let config = builder.with_single_cert(certificates(certificate)?, key)?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |cause| TlsError::Pem {
        path: path.to_owned(),
        cause,
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect();
    let all = all.map_err(unreadable)?;
    if all.is_empty() {
        return Err(unreadable(rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(all)
}
