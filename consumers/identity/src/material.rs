//! What the files for TLS hold, read at once.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use openssl::{
    pkey::{PKey, Private},
    x509::X509,
};

use crate::{Secret, TlsFiles};

/// Certificates and key that belong together, or at least did when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    /// Authorities to trust instead of the system's, in PEM.
    pub authorities: Option<String>,
    /// The client's certificate.
    pub identity: Option<Identity>,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and behind it those between it and its authority, in PEM.
    pub certificates: String,
    /// Its key, in PEM by PKCS #8, no longer encrypted.
    pub key: Secret,
}

impl Material {
    /// Reads the files of a section of the configuration, such as `kafka.tls`.
    ///
    /// # Errors
    /// One cannot be read or is not what it should be, or the key belongs to another certificate, as it does for a moment
    /// while both are replaced.
    pub fn read(section: &str, files: &TlsFiles) -> Result<Self> {
        let authorities = match &files.ca {
            None => None,
            Some(file) => Some(to_pem(&certificates(&format!("{section}.ca_file"), file)?)?),
        };
        let identity = match &files.client {
            None => None,
            Some((certificate, key)) => Some(identity(section, certificate, key, files.key_password.as_ref())?),
        };
        Ok(Self { authorities, identity })
    }

    /// Authorities for OpenSSL, if the system's do not count.
    ///
    /// # Errors
    /// Those of OpenSSL, for what was not read by [`Material::read`].
    pub fn parsed_authorities(&self) -> Result<Option<Vec<X509>>> {
        let Some(pem) = &self.authorities else { return Ok(None) };
        Ok(Some(X509::stack_from_pem(pem.as_bytes()).context("parse authorities")?))
    }

    /// A connector of the TLS library that the HTTP clients use.
    ///
    /// # Errors
    /// Those of the TLS library.
    pub fn connector(&self) -> Result<native_tls::TlsConnector> {
        let mut builder = native_tls::TlsConnector::builder();
        if let Some(pem) = &self.authorities {
            builder.disable_built_in_roots(true);
            for authority in native_tls::Certificate::stack_from_pem(pem.as_bytes()).context("parse authorities")? {
                builder.add_root_certificate(authority);
            }
        }
        if let Some(Identity { certificates, key }) = &self.identity {
            let identity = native_tls::Identity::from_pkcs8(certificates.as_bytes(), key.expose().as_bytes());
            builder.identity(identity.context("parse the client's certificate")?);
        }
        builder.build().context("set up TLS")
    }
}

impl Identity {
    /// As OpenSSL has them: the own certificate first, and its key.
    ///
    /// # Errors
    /// Those of OpenSSL, for what was not read by [`Material::read`].
    pub fn parsed(&self) -> Result<(Vec<X509>, PKey<Private>)> {
        let certificates = X509::stack_from_pem(self.certificates.as_bytes())?;
        Ok((certificates, PKey::private_key_from_pem(self.key.expose().as_bytes())?))
    }
}

fn identity(section: &str, certificate: &Path, key: &Path, password: Option<&Secret>) -> Result<Identity> {
    let own = certificates(&format!("{section}.certificate_file"), certificate)?;
    let name = format!("{section}.key_file {}", key.display());
    let pem = fs::read(key).with_context(|| format!("read {name}"))?;
    // Without a password OpenSSL would ask for one on the terminal.
    let password = password.map_or("", Secret::expose);
    let private = PKey::private_key_from_pem_passphrase(&pem, password.as_bytes()).map_err(|error| {
        anyhow!("{name} holds no private key in PEM that {section}.key_password opens (or it needs none): {error}")
    })?;
    let of_certificate = own.first().map(|certificate| certificate.public_key()).transpose()?;
    if !of_certificate.is_some_and(|public| public.public_eq(&private)) {
        bail!(
            "{name} is not the key of the first certificate in {}: replace both files, or put that certificate first",
            certificate.display()
        );
    }
    let pkcs8 = private.private_key_to_pem_pkcs8().with_context(|| format!("use {name}"))?;
    Ok(Identity { certificates: to_pem(&own)?, key: Secret::new(text(pkcs8)?) })
}

/// The certificates of a file, at least one; `key` is what the configuration calls it.
///
/// # Errors
/// It cannot be read, or holds none in PEM.
pub fn certificates(key: &str, file: &Path) -> Result<Vec<X509>> {
    let pem = fs::read(file).with_context(|| format!("read {key} {}", file.display()))?;
    let all = X509::stack_from_pem(&pem).map_err(|error| anyhow!("parse {key} {} as PEM: {error}", file.display()))?;
    // Without any, nothing would be trusted, and every connection would fail without saying why.
    ensure!(!all.is_empty(), "{key} {} holds no certificate in PEM", file.display());
    Ok(all)
}

fn to_pem(certificates: &[X509]) -> Result<String> {
    let mut pem = String::new();
    for certificate in certificates {
        pem += &text(certificate.to_pem()?)?;
    }
    Ok(pem)
}

fn text(pem: Vec<u8>) -> Result<String> {
    String::from_utf8(pem).context("read what OpenSSL writes as text")
}
