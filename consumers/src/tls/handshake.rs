//! Why a handshake fails, in words. Clients tell it in the words of their libraries, or not at all, so `millrace check`
//! makes a handshake of its own and goes by the codes of OpenSSL.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use hyper::Uri;
use openssl::{
    ssl::{ErrorCode, HandshakeError, SslConnector, SslMethod, SslVerifyMode},
    x509::{X509Ref, X509StoreContextRef},
};

use super::Material;
use crate::{config::TlsFiles, one_line};

/// After a handshake by TLS 1.3 the server has not yet looked at the client's certificate: its refusal comes as the answer to
/// nothing at all.
const REFUSAL_WITHIN: Duration = Duration::from_millis(500);

/// Reasons of OpenSSL (`ERR_GET_REASON`, include/openssl/sslerr.h). Those from 1000 on are alerts that the server has sent,
/// 1000 and the number of the alert (RFC 8446, 6.2).
mod reason {
    pub(super) const HTTP_REQUEST: i32 = 156;
    pub(super) const EOF: i32 = 294;
    pub(super) const RECORD_TOO_SMALL: i32 = 298;
    pub(super) const WRONG_VERSION_NUMBER: i32 = 267;
    pub(super) const PACKET_LENGTH_TOO_LONG: i32 = 198;
    pub(super) const HANDSHAKE_FAILURE: i32 = 1040;
    pub(super) const BAD_CERTIFICATE: i32 = 1042;
    pub(super) const CERTIFICATE_REVOKED: i32 = 1044;
    pub(super) const CERTIFICATE_EXPIRED: i32 = 1045;
    pub(super) const CERTIFICATE_UNKNOWN: i32 = 1046;
    pub(super) const UNKNOWN_CA: i32 = 1048;
    pub(super) const PROTOCOL_VERSION: i32 = 1070;
    pub(super) const UNRECOGNIZED_NAME: i32 = 1112;
    pub(super) const CERTIFICATE_REQUIRED: i32 = 1116;
}

/// What is wrong with a certificate, by OpenSSL (include/openssl/x509_vfy.h).
mod verdict {
    pub(super) const UNABLE_TO_GET_ISSUER_CERT: i32 = 2;
    pub(super) const CERT_SIGNATURE_FAILURE: i32 = 7;
    pub(super) const CERT_NOT_YET_VALID: i32 = 9;
    pub(super) const CERT_HAS_EXPIRED: i32 = 10;
    pub(super) const DEPTH_ZERO_SELF_SIGNED_CERT: i32 = 18;
    pub(super) const SELF_SIGNED_CERT_IN_CHAIN: i32 = 19;
    pub(super) const UNABLE_TO_GET_ISSUER_CERT_LOCALLY: i32 = 20;
    pub(super) const UNABLE_TO_VERIFY_LEAF_SIGNATURE: i32 = 21;
    pub(super) const HOSTNAME_MISMATCH: i32 = 62;
    pub(super) const IP_ADDRESS_MISMATCH: i32 = 64;
}

/// What was wrong with the server's certificate.
struct Rejected {
    verdict: i32,
    text: &'static str,
    from: String,
    until: String,
    names: String,
}

/// Makes a handshake with `address` (`host:port`), and says what is wrong with it and what to do, with the raw text of
/// OpenSSL in brackets. `None` if nothing is wrong, or what is wrong has nothing to do with TLS. It blocks for a few times
/// `timeout`. `section` is where the configuration names the files.
pub fn look(
    section: &str,
    address: &str,
    material: &Material,
    verify_hostname: bool,
    timeout: Duration,
) -> Option<String> {
    let (host, _) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = address.to_socket_addrs().ok()?.find_map(|at| TcpStream::connect_timeout(&at, timeout).ok())?;
    stream.set_read_timeout(Some(timeout)).ok()?;
    stream.set_write_timeout(Some(timeout)).ok()?;
    let connector = connector(material).ok()?;
    let mut configuration = connector.configure().ok()?.verify_hostname(verify_hostname);
    let rejected = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&rejected);
    configuration.set_verify_callback(SslVerifyMode::PEER, move |is_good, context| {
        if !is_good {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rejected::of(context));
        }
        is_good
    });
    let identified = material.identity.is_some();
    let (words, raw) = match configuration.connect(host, stream) {
        Ok(mut stream) => {
            stream.get_ref().set_read_timeout(Some(REFUSAL_WITHIN)).ok()?;
            let error = stream.ssl_read(&mut [0]).err()?;
            (by_reason(section, reasons(&error), identified)?, error.to_string())
        }
        Err(HandshakeError::Failure(failed)) => {
            let error = failed.error();
            let silent =
                error.io_error().is_none() && matches!(error.code(), ErrorCode::SYSCALL | ErrorCode::ZERO_RETURN);
            let closed = silent || error.io_error().is_some_and(is_closed) || reasons(error).contains(&reason::EOF);
            match &*rejected.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(rejected) => (rejected.words(section, host), format!("{error} ({})", rejected.text)),
                None => {
                    let hangs_up = "the server hangs up in the middle of the handshake: is this the port for TLS?";
                    let words = by_reason(section, reasons(error), identified);
                    (words.or_else(|| closed.then(|| hangs_up.to_owned()))?, error.to_string())
                }
            }
        }
        Err(HandshakeError::SetupFailure(_) | HandshakeError::WouldBlock(_)) => return None,
    };
    Some(format!("{words} [{}]", one_line(raw)))
}

/// As [`look`], for a server that is reached by a URL; `None` if that is not one with https.
pub async fn look_at(section: &'static str, url: &str, files: &TlsFiles, timeout: Duration) -> Option<String> {
    let uri = url.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("https"))?;
    let address = format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(443));
    let material = Material::read(section, files).ok()?;
    let looked = tokio::task::spawn_blocking(move || look(section, &address, &material, true, timeout));
    looked.await.ok().flatten()
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

fn connector(material: &Material) -> Result<SslConnector> {
    let mut builder = SslConnector::builder(SslMethod::tls())?;
    if let Some(authorities) = material.parsed_authorities()? {
        builder.set_cert_store(openssl::x509::store::X509StoreBuilder::new()?.build());
        for authority in authorities {
            builder.cert_store_mut().add_cert(authority)?;
        }
    }
    if let Some(identity) = &material.identity {
        let (certificates, key) = identity.parsed()?;
        let mut certificates = certificates.into_iter();
        if let Some(own) = certificates.next() {
            builder.set_certificate(&own)?;
        }
        for between in certificates {
            builder.add_extra_chain_cert(between)?;
        }
        builder.set_private_key(&key)?;
    }
    Ok(builder.build())
}

fn reasons(error: &openssl::ssl::Error) -> Vec<i32> {
    let stack = error.ssl_error().map(|stack| stack.errors());
    stack.unwrap_or_default().iter().map(|error| error.reason_code()).collect()
}

impl Rejected {
    fn of(context: &X509StoreContextRef) -> Self {
        let certificate = context.current_cert();
        let names = certificate.and_then(X509Ref::subject_alt_names);
        let names = names.iter().flatten().filter_map(|name| name.dnsname().map(str::to_owned));
        Self {
            verdict: context.error().as_raw(),
            text: context.error().error_string(),
            from: certificate.map(|certificate| certificate.not_before().to_string()).unwrap_or_default(),
            until: certificate.map(|certificate| certificate.not_after().to_string()).unwrap_or_default(),
            names: names.collect::<Vec<_>>().join(", "),
        }
    }

    fn words(&self, section: &str, host: &str) -> String {
        let Self { from, until, names, .. } = self;
        match self.verdict {
            verdict::CERT_HAS_EXPIRED => format!(
                "the server's certificate has expired on {until}: renew it on the server (or set the clock here right)"
            ),
            verdict::CERT_NOT_YET_VALID => {
                format!("the server's certificate is not valid before {from}: is the clock here right?")
            }
            verdict::HOSTNAME_MISMATCH | verdict::IP_ADDRESS_MISMATCH => format!(
                "the server's certificate is for another host name: it is for {names}, and this connection is to {host}; use a name that it is for, or have it made out to {host} as well"
            ),
            verdict::UNABLE_TO_GET_ISSUER_CERT
            | verdict::UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | verdict::UNABLE_TO_VERIFY_LEAF_SIGNATURE
            | verdict::CERT_SIGNATURE_FAILURE
            | verdict::DEPTH_ZERO_SELF_SIGNED_CERT
            | verdict::SELF_SIGNED_CERT_IN_CHAIN => format!(
                "the server's certificate is not of an authority that is trusted here: set {section}.ca_file to the certificate of the authority that has signed it"
            ),
            _ => "the server's certificate is not accepted".to_owned(),
        }
    }
}

/// What the server says is wrong with us, or what is not TLS.
fn by_reason(section: &str, reasons: Vec<i32>, identified: bool) -> Option<String> {
    reasons.into_iter().find_map(|reason| match reason {
        reason::CERTIFICATE_REQUIRED | reason::HANDSHAKE_FAILURE | reason::BAD_CERTIFICATE if !identified => Some(format!(
            "the server asks for a certificate of the client: set {section}.certificate_file and {section}.key_file"
        )),
        reason::UNKNOWN_CA | reason::BAD_CERTIFICATE | reason::CERTIFICATE_UNKNOWN | reason::CERTIFICATE_REQUIRED
            if identified =>
        {
            Some(format!(
                "the server does not accept the certificate of {section}.certificate_file: is it of an authority that the server trusts, and still valid?"
            ))
        }
        reason::CERTIFICATE_EXPIRED => {
            Some(format!("the server says that the certificate of {section}.certificate_file has expired: renew it"))
        }
        reason::CERTIFICATE_REVOKED => {
            Some(format!("the server says that the certificate of {section}.certificate_file is revoked: get another"))
        }
        reason::HTTP_REQUEST
        | reason::WRONG_VERSION_NUMBER
        | reason::PACKET_LENGTH_TOO_LONG
        | reason::RECORD_TOO_SMALL => {
            Some("the server does not speak TLS on this port: is it the port for TLS?".to_owned())
        }
        reason::PROTOCOL_VERSION => Some("server and client share no version of TLS".to_owned()),
        reason::HANDSHAKE_FAILURE => Some("server and client share no cipher".to_owned()),
        reason::UNRECOGNIZED_NAME => Some("the server does not know the host name of this connection".to_owned()),
        _ => None,
    })
}
