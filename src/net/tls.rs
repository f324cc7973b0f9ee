//! TLS towards clients.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::Listen;
use crate::tls;

/// Why TLS cannot be offered.
#[derive(Debug, Error)]
pub enum OfferError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] tls::TlsError),
    /// A certificate comes without its key, or the other way round.
    #[error("tls_certificate and tls_key are needed, not one of them")]
    Half,
    /// The authorities for clients' certificates are unusable.
    #[error("tls_client_ca: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// Certificate and key do not fit, or are unusable.
    #[error(transparent)]
    Refused(#[from] rustls::Error),
}

/// The acceptor that `listen` asks for; `None` for plain TCP.
pub fn acceptor(listen: &Listen) -> Result<Option<TlsAcceptor>, OfferError> {
    let (certificate, key) = match (&listen.tls_certificate, &listen.tls_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(OfferError::Half),
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &listen.tls_client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(tls::authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config =
        builder.with_single_cert(tls::certificates(certificate)?, tls::private_key(key)?)?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
