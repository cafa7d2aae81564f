//! Certificates for one test: an authority, a host on the loopback interface, a client.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};
use tokio_rustls::server::TlsStream;

/// An authority, and what it signed. All are PEM.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The certificate of the authority.
    pub authority: String,
    /// The certificate of `localhost` and 127.0.0.1.
    pub server: String,
    /// Its key.
    pub server_key: String,
    /// The certificate of a client.
    pub client: String,
    /// Its key.
    pub client_key: String,
}

impl Certificates {
    /// New ones.
    pub fn new() -> Self {
        let (authority, issuer) = authority().expect("an authority can be made");
        let (server, server_key) =
            signed(&issuer, &["localhost", "127.0.0.1"], "server").expect("it can be signed");
        let (client, client_key) = signed(&issuer, &[], "client").expect("it can be signed");
        Self { authority, server, server_key, client, client_key }
    }

    /// Writes them to `dir` as `ca.pem`, `server.pem`, `server-key.pem`, `client.pem` and
    /// `client-key.pem`.
    pub fn write(&self, dir: &Path) -> io::Result<Paths> {
        let file = |name: &str, content: &str| {
            let path = dir.join(name);
            fs::write(&path, content).map(|()| path)
        };
        Ok(Paths {
            authority: file("ca.pem", &self.authority)?,
            server: file("server.pem", &self.server)?,
            server_key: file("server-key.pem", &self.server_key)?,
            client: file("client.pem", &self.client)?,
            client_key: file("client-key.pem", &self.client_key)?,
        })
    }

    /// What a server needs that speaks HTTP/2 and HTTP/1.1, and wants a certificate of its clients
    /// if `mutual`.
    pub fn config(&self, mutual: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(crypto::ring::default_provider());
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("they are known");
        let builder = if mutual {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&self.authority).expect("PEM")).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("it has a root"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_slice(self.server_key.as_bytes()).expect("PEM");
        let chain = vec![certificate(&self.server).expect("PEM")];
        let mut config = builder.with_single_cert(chain, key).expect("they belong together");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

/// Where they were written.
#[derive(Clone, Debug)]
pub struct Paths {
    /// See [`Certificates::authority`]; the others likewise.
    pub authority: PathBuf,
    /// The server's certificate.
    pub server: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// The client's certificate.
    pub client: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

fn authority() -> Result<(String, Issuer<'static, KeyPair>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A client chooses its certificate by the name of the authority.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}

fn signed(
    issuer: &Issuer<'_, KeyPair>,
    names: &[&str],
    common: &str,
) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common);
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Connections with TLS. One that does not come about is closed.
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    config: Arc<ServerConfig>,
}

impl TlsListener {
    /// Connections of `tcp`, as `config` says.
    pub fn new(tcp: TcpListener, config: Arc<ServerConfig>) -> Self {
        Self { tcp, config }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
