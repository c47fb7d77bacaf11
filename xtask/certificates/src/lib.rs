//! Certificates for the development stack and for tests: authorities, servers, clients, good and bad ones. It writes no
//! file and is part of no product.
//!
//! Keys are on the curve P-256, since RSA keys take half a second each to make.

use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    x509::{
        X509, X509Builder, X509Name, X509NameBuilder,
        extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName},
    },
};

const DAY_SECONDS: i64 = 86_400;

/// Who signs certificates.
pub struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

/// A certificate and its key, in PEM; the key in PKCS #8 and not encrypted.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// What a certificate says.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Common name of its subject.
    pub name: &'a str,
    /// DNS names that a server of this certificate answers to.
    pub hosts: &'a [&'a str],
    /// From when it is valid, in seconds from now; negative for the past.
    pub from_seconds: i64,
    /// Until when.
    pub until_seconds: i64,
}

impl<'a> Wanted<'a> {
    /// Valid since yesterday, and for ten years.
    pub fn new(name: &'a str, hosts: &'a [&'a str]) -> Self {
        Self { name, hosts, from_seconds: -DAY_SECONDS, until_seconds: 3650 * DAY_SECONDS }
    }

    /// Valid from ten days ago until yesterday.
    pub fn expired(self) -> Self {
        Self { from_seconds: -10 * DAY_SECONDS, until_seconds: -DAY_SECONDS, ..self }
    }
}

impl Authority {
    /// A new authority, which has signed itself.
    ///
    /// # Errors
    /// Those of OpenSSL.
    pub fn new(name: &str) -> Result<Self, ErrorStack> {
        let key = key()?;
        let mut builder = begin(&Wanted::new(name, &[]), &key)?;
        builder.set_issuer_name(subject(name)?.as_ref())?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { certificate: builder.build(), key })
    }

    /// One that was made before.
    ///
    /// # Errors
    /// That is no certificate or key in PEM.
    pub fn of(pem: &Issued) -> Result<Self, ErrorStack> {
        let certificate = X509::from_pem(pem.certificate.as_bytes())?;
        Ok(Self { certificate, key: PKey::private_key_from_pem(pem.key.as_bytes())? })
    }

    /// Its own certificate and key.
    ///
    /// # Errors
    /// Those of OpenSSL.
    pub fn own(&self) -> Result<Issued, ErrorStack> {
        issued(&self.certificate, &self.key)
    }

    /// A certificate for a server and a client.
    ///
    /// # Errors
    /// Those of OpenSSL.
    pub fn issue(&self, wanted: &Wanted<'_>) -> Result<Issued, ErrorStack> {
        let key = key()?;
        let mut builder = begin(wanted, &key)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.append_extension(BasicConstraints::new().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().client_auth().build()?)?;
        if !wanted.hosts.is_empty() {
            let mut names = SubjectAlternativeName::new();
            wanted.hosts.iter().for_each(|host| _ = names.dns(host));
            let names = names.build(&builder.x509v3_context(Some(&self.certificate), None))?;
            builder.append_extension(names)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        issued(&builder.build(), &key)
    }
}

fn key() -> Result<PKey<Private>, ErrorStack> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&curve)?)
}

fn subject(name: &str) -> Result<X509Name, ErrorStack> {
    let mut subject = X509NameBuilder::new()?;
    subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
    Ok(subject.build())
}

fn begin(wanted: &Wanted<'_>, key: &PKey<Private>) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let mut serial = BigNum::new()?;
    serial.rand(120, MsbOption::MAYBE_ZERO, false)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(subject(wanted.name)?.as_ref())?;
    builder.set_pubkey(key)?;
    builder.set_not_before(in_seconds(wanted.from_seconds)?.as_ref())?;
    builder.set_not_after(in_seconds(wanted.until_seconds)?.as_ref())?;
    Ok(builder)
}

fn in_seconds(seconds: i64) -> Result<Asn1Time, ErrorStack> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    Asn1Time::from_unix(now + seconds)
}

fn issued(certificate: &X509, key: &PKey<Private>) -> Result<Issued, ErrorStack> {
    // What OpenSSL writes as PEM is ASCII.
    let text = |pem: Vec<u8>| String::from_utf8_lossy(&pem).into_owned();
    Ok(Issued { certificate: text(certificate.to_pem()?), key: text(key.private_key_to_pem_pkcs8()?) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_an_authority_issues_is_signed_by_it_and_by_no_other() {
        let [ours, other] = ["ours", "another"].map(|name| Authority::new(name).unwrap());
        let again = Authority::of(&ours.own().unwrap()).unwrap();
        let issued = again.issue(&Wanted::new("server", &["localhost"])).unwrap();
        let certificate = X509::from_pem(issued.certificate.as_bytes()).unwrap();
        assert!(certificate.verify(&ours.key).unwrap());
        assert!(!certificate.verify(&other.key).unwrap());
        let names = certificate.subject_alt_names().unwrap();
        assert_eq!(names.iter().map(|name| name.dnsname().unwrap()).collect::<Vec<_>>(), ["localhost"]);
        assert!(issued.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn an_expired_certificate_ended_before_now() {
        let issued = Authority::new("ours").unwrap().issue(&Wanted::new("old", &[]).expired()).unwrap();
        let certificate = X509::from_pem(issued.certificate.as_bytes()).unwrap();
        assert!(certificate.not_after() < Asn1Time::days_from_now(0).unwrap());
    }
}
