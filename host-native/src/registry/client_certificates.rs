//! TLS to hosts for which there are several client certificates: the one that the host takes is sent.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;
use webpki::EndEntityCert;

/// What a client shows: a certificate, those between it and its authority, and the key.
pub(super) type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A configuration that trusts `authorities` beside the system's, or whatever certificate the host has,
/// and shows one of `certificates`.
///
/// # Errors
/// If a key is not that of its certificate, or the system has no authorities.
pub(super) fn config(
    authorities: Vec<CertificateDer<'static>>,
    certificates: Vec<Shown>,
    skip_verify: bool,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let keys = certificates
        .into_iter()
        .map(|(chain, key)| CertifiedKey::from_der(chain, key, &provider).map(Arc::new));
    let keys = keys.collect::<Result<_, _>>()?;
    let verifier: Arc<dyn ServerCertVerifier> = if skip_verify {
        Arc::new(AnyServer(Arc::clone(&provider)))
    } else {
        Arc::new(Verifier::new_with_extra_roots(authorities, Arc::clone(&provider))?)
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(FirstTaken(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Shows the first certificate that the host can take, or none, as Go's clients do.
#[derive(Debug)]
struct FirstTaken(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for FirstTaken {
    fn resolve(&self, names: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let signs = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(schemes).is_some();
        let taken = |it: &&Arc<CertifiedKey>| {
            names.is_empty() || it.cert.iter().any(|certificate| is_by(certificate, names))
        };
        self.0.iter().filter(signs).find(taken).map(Arc::clone)
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Whether one of the authorities with these names signed a certificate.
fn is_by(certificate: &CertificateDer<'_>, names: &[&[u8]]) -> bool {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
    names.iter().any(|name| inside(name) == Some(certificate.issuer()))
}

/// What is in a DER sequence of less than 64 KiB (X.690, section 8.1).
fn inside(sequence: &[u8]) -> Option<&[u8]> {
    match sequence {
        [0x30, 0x81, _, inside @ ..] | [0x30, 0x82, _, _, inside @ ..] => Some(inside),
        [0x30, length, inside @ ..] if *length < 0x80 => Some(inside),
        _ => None,
    }
}

/// Trusts every host. That the host has the key of its certificate is checked all the same.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
