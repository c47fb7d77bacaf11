//! What stands in front of a server that speaks plain HTTP, as a load balancer does: it ends TLS, looks at who comes, and
//! passes on. libchdb has no port for TLS, and the registry of the stack knows no users.

use std::{
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
};

use openssl::{
    nid::Nid,
    ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslVerifyMode},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_openssl::SslStream;

/// Whom a front lets in.
#[derive(Clone, Default)]
pub(crate) struct Rules {
    /// Whether a certificate of the stack's authority is needed.
    pub(crate) certificate: bool,
    /// The header `Authorization` that is needed.
    pub(crate) authorization: Option<String>,
    /// Password of the user that a certificate of the same name stands for, as ClickHouse does it by itself.
    pub(crate) known_by_certificate: Option<String>,
}

/// A front that lives as long as the test's runtime.
pub(crate) struct Front {
    pub(crate) port: u16,
    /// Common names of the certificates that clients came with, in order.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

/// Accepts TLS with the certificate `server` of the folder.
pub(crate) fn acceptor(certificates: &Path, server: &str, client_certificate: bool) -> SslAcceptor {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate_chain_file(certificates.join(format!("{server}.pem"))).unwrap();
    acceptor.set_private_key_file(certificates.join(format!("{server}.key")), SslFiletype::PEM).unwrap();
    if client_certificate {
        acceptor.set_ca_file(certificates.join("ca.pem")).unwrap();
        acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    }
    acceptor.build()
}

/// The stream once the handshake is done; `None` if it fails.
pub(crate) async fn accept(acceptor: &SslAcceptor, stream: TcpStream) -> Option<SslStream<TcpStream>> {
    let mut stream = SslStream::new(Ssl::new(acceptor.context()).unwrap(), stream).unwrap();
    Pin::new(&mut stream).accept().await.ok().map(|()| stream)
}

/// What stands before the body of a request, and what of the body came with it.
pub(crate) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Some((String::from_utf8(read).unwrap(), rest));
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

impl Front {
    /// In front of `upstream` (`host:port`), with the certificate `server` of the folder.
    pub(crate) async fn start(upstream: &str, certificates: &Path, server: &str, rules: Rules) -> Self {
        let acceptor = acceptor(certificates, server, rules.certificate);
        let upstream: SocketAddr = upstream.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, rules, names) = (acceptor.clone(), rules.clone(), Arc::clone(&names));
                tokio::spawn(async move {
                    if let Some(stream) = accept(&acceptor, stream).await {
                        pass(stream, upstream, &rules, &names).await;
                    }
                });
            }
        });
        Self { port, seen }
    }
}

async fn pass(mut client: SslStream<TcpStream>, upstream: SocketAddr, rules: &Rules, names: &Mutex<Vec<String>>) {
    let name = client.ssl().peer_certificate().and_then(|certificate| {
        let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next()?;
        name.data().to_string().ok()
    });
    names.lock().unwrap().extend(name.clone());
    let mut server = TcpStream::connect(upstream).await.unwrap();
    if rules.authorization.is_some() || rules.known_by_certificate.is_some() {
        let Some((head, body)) = head(&mut client).await else { return };
        if rules.authorization.is_some() && header(&head, "authorization") != rules.authorization.as_deref() {
            refuse(&mut client, "401 Unauthorized", "", r#"{"error_code":40101,"message":"Unauthorized"}"#).await;
            return;
        }
        let mut lines: Vec<String> = head.trim_end().lines().map(str::to_owned).collect();
        if let Some(password) = &rules.known_by_certificate {
            let asked = header(&head, "x-clickhouse-ssl-certificate-auth") == Some("on");
            if !asked || header(&head, "x-clickhouse-user") != name.as_deref() {
                let code = "x-clickhouse-exception-code: 516\r\n";
                let text = "Code: 516. DB::Exception: Authentication failed: password is incorrect, or there is no user with such name.";
                refuse(&mut client, "403 Forbidden", code, text).await;
                return;
            }
            lines.retain(|line| !line.to_lowercase().starts_with("x-clickhouse-ssl"));
            lines.push(format!("X-ClickHouse-Key: {password}"));
        }
        // One request for each connection: the next one has to be looked at as well.
        lines.push("Connection: close".to_owned());
        server.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await.unwrap();
        server.write_all(&body).await.unwrap();
    }
    _ = copy_bidirectional(&mut client, &mut server).await;
}

async fn refuse(client: &mut SslStream<TcpStream>, status: &str, more: &str, body: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{more}connection: close\r\n\r\n{body}",
        body.len()
    );
    _ = client.write_all(answer.as_bytes()).await;
    _ = client.shutdown().await;
}
