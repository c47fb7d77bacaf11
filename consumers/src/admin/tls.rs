//! TLS of the admin API, by OpenSSL: the certificate of this process, and those of clients if they need one. Files are read
//! again when they have changed, so that a certificate can be renewed without a restart.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use openssl::{
    nid::Nid,
    ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslVerifyMode},
    x509::{X509Name, X509Ref},
};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::config::AdminTls;

/// How often files are looked at, while connections come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Takes the server's part in handshakes.
pub(super) struct Tls {
    files: AdminTls,
    current: Mutex<Current>,
}

struct Current {
    acceptor: SslAcceptor,
    changed: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl Tls {
    /// Reads the files.
    pub(super) fn new(files: AdminTls) -> Result<Self> {
        let changed = changed(&files);
        let current = Current { acceptor: acceptor(&files)?, changed, looked: Instant::now() };
        Ok(Self { files, current: Mutex::new(current) })
    }

    /// Shakes hands; also tells the subject of the client's certificate, if one was asked for.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(SslStream<TcpStream>, Option<String>)> {
        let session = Ssl::new(self.acceptor().context()).context("begin a TLS session")?;
        let mut stream = SslStream::new(session, stream).context("begin a TLS session")?;
        std::pin::Pin::new(&mut stream).accept().await.context("shake hands")?;
        let certificate = stream.ssl().peer_certificate().map(|certificate| subject(&certificate));
        Ok((stream, certificate))
    }

    fn acceptor(&self) -> SslAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            let changed = changed(&self.files);
            if current.changed != changed {
                current.changed = changed;
                match acceptor(&self.files) {
                    Ok(acceptor) => {
                        current.acceptor = acceptor;
                        tracing::info!("the certificate of the admin API was read again");
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::error!(
                            error,
                            "the certificate of the admin API has changed and cannot be used; the one before still is"
                        );
                    }
                }
            }
        }
        current.acceptor.clone()
    }
}

fn changed(files: &AdminTls) -> Vec<Option<SystemTime>> {
    let of = |file: &Path| fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
    let AdminTls { certificate_file, key_file, client_ca_file } = files;
    vec![of(certificate_file), of(key_file), client_ca_file.as_deref().and_then(of)]
}

fn acceptor(files: &AdminTls) -> Result<SslAcceptor> {
    let AdminTls { certificate_file, key_file, client_ca_file } = files;
    // TLS 1.2 and 1.3, no old ciphers.
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).context("set up TLS")?;
    let certificate = certificate_file.display();
    builder
        .set_certificate_chain_file(certificate_file)
        .with_context(|| format!("read admin.tls.certificate_file {certificate} as PEM"))?;
    builder
        .set_private_key_file(key_file, SslFiletype::PEM)
        .with_context(|| format!("read admin.tls.key_file {} as PEM, without a password", key_file.display()))?;
    builder.check_private_key().with_context(|| {
        format!("admin.tls.key_file {} is not the key of admin.tls.certificate_file {certificate}", key_file.display())
    })?;
    if let Some(file) = client_ca_file {
        let read = || format!("read admin.tls.client_ca_file {} as PEM", file.display());
        let authorities = X509Name::load_client_ca_file(file).with_context(read)?;
        builder.set_ca_file(file).with_context(read)?;
        builder.set_client_ca_list(authorities);
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        builder.set_session_id_context(b"millrace-admin").context("set up TLS")?;
    }
    Ok(builder.build())
}

/// The common name, or else the whole subject.
fn subject(certificate: &X509Ref) -> String {
    let names = certificate.subject_name();
    let common = names.entries_by_nid(Nid::COMMONNAME).next().and_then(|entry| entry.data().to_string().ok());
    common.unwrap_or_else(|| format!("{names:?}"))
}
