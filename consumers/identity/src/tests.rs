//! Files that are good, bad, and half replaced.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use millrace_certificates::{Authority, Issued, Wanted};
use openssl::{pkey::PKey, symm::Cipher};

use super::*;

static FOLDERS: AtomicUsize = AtomicUsize::new(0);

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = format!("{}-{}", std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("millrace-tls-{}", folder));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.0.join(name), content).unwrap();
        self.0.join(name)
    }

    fn files(&self, ca: &Authority, client: &Issued) -> TlsFiles {
        let ca = self.write("ca.pem", &ca.own().unwrap().certificate);
        let client = (self.write("client.pem", &client.certificate), self.write("client.key", &client.key));
        TlsFiles { ca: Some(ca), client: Some(client), key_password: None }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn client(ca: &Authority) -> Issued {
    ca.issue(&Wanted::new("client", &[])).unwrap()
}

#[test]
fn certificate_and_key_are_read_whole_with_those_between_and_what_is_wrong_is_named() {
    let (folder, ca) = (Folder::new(), Authority::new("ca").unwrap());
    let own = client(&ca);
    let mut files = folder.files(&ca, &own);
    folder.write("client.pem", &format!("{}{}", own.certificate, ca.own().unwrap().certificate));
    let material = Material::read("kafka.tls", &files).unwrap();
    assert_eq!(material.identity.as_ref().unwrap().parsed().unwrap().0.len(), 2);
    assert!(!format!("{material:?}").contains("PRIVATE KEY"));
    material.connector().unwrap();

    let key = PKey::private_key_from_pem(own.key.as_bytes()).unwrap();
    let locked = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"hunter2").unwrap();
    folder.write("client.key", &String::from_utf8(locked).unwrap());
    let error = Material::read("kafka.tls", &files).unwrap_err().to_string();
    assert!(error.contains("client.key") && error.contains("kafka.tls.key_password"), "{error}");
    files.key_password = Some(Secret::new("hunter2"));
    assert_eq!(Material::read("kafka.tls", &files).unwrap(), material);

    for (name, content, words) in [
        ("client.key", client(&ca).key, "is not the key of the first certificate in"),
        ("client.key", "x".to_owned(), "holds no private key in PEM"),
        ("client.pem", String::new(), "holds no certificate in PEM"),
        ("ca.pem", "x".to_owned(), "holds no certificate in PEM"),
    ] {
        let before = fs::read_to_string(folder.0.join(name)).unwrap();
        folder.write(name, &content);
        let error = format!("{:#}", Material::read("kafka.tls", &files).unwrap_err());
        assert!(error.contains(words) && error.contains(name), "{error}");
        folder.write(name, &before);
    }
}

#[test]
fn half_replaced_files_change_nothing_and_whole_ones_are_used() {
    let (folder, ca) = (Folder::new(), Authority::new("ca").unwrap());
    let [old, new] = [client(&ca), client(&ca)];
    let files = folder.files(&ca, &old);
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let renewed = Renewed::new("clickhouse", &files, move |material| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(material.identity.clone().unwrap().certificates)
    })
    .unwrap();
    let now = || renewed.get_after(Duration::ZERO);
    assert_eq!((now(), made.load(Ordering::Relaxed)), (old.certificate.clone(), 1));
    folder.write("client.pem", &new.certificate);
    assert_eq!(now(), old.certificate, "the key is still the old one");
    folder.write("client.pem", &new.certificate[..200]);
    assert_eq!(now(), old.certificate);
    fs::remove_file(folder.0.join("client.pem")).unwrap();
    assert_eq!(now(), old.certificate);
    folder.write("client.pem", &new.certificate);
    folder.write("client.key", &new.key);
    assert_eq!(renewed.get(), old.certificate, "the files are looked at now and then only");
    assert_eq!((now(), made.load(Ordering::Relaxed)), (new.certificate, 2));
}
