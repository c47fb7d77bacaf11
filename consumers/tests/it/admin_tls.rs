//! The admin API over TLS: encrypted, with a certificate that is renewed under way, and for clients with a certificate only.

use std::{fs, path::PathBuf};

use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    x509::{
        X509, X509Builder, X509NameBuilder,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};
use reqwest::{Certificate, Client, Identity};

use crate::door::Door;

/// An authority, or somebody that it vouches for.
struct Party {
    certificate: X509,
    key: PKey<Private>,
}

impl Party {
    /// One of this name, vouched for by `by`, or an authority by itself.
    fn new(name: &str, serial: u32, by: Option<&Self>) -> Self {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
        let subject = subject.build();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&BigNum::from_u32(serial).unwrap().to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(by.map_or(&*subject, |by| by.certificate.subject_name())).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        match by {
            None => builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap(),
            Some(_) => {
                let context = builder.x509v3_context(None, None);
                let host = SubjectAlternativeName::new().ip("127.0.0.1").build(&context).unwrap();
                builder.append_extension(host).unwrap();
            }
        }
        builder.sign(by.map_or(&key, |by| &by.key), MessageDigest::sha256()).unwrap();
        Self { certificate: builder.build(), key }
    }

    fn certificate(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    fn key(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().unwrap()
    }

    fn identity(&self) -> Identity {
        Identity::from_pkcs8_pem(&self.certificate(), &self.key()).unwrap()
    }
}

fn client(authority: &Party, identity: Option<&Party>) -> Client {
    let authority = Certificate::from_pem(&authority.certificate()).unwrap();
    let builder = Client::builder().tls_certs_only([authority]).tls_info(true).pool_max_idle_per_host(0);
    match identity {
        Some(party) => builder.identity(party.identity()),
        None => builder,
    }
    .build()
    .unwrap()
}

/// Status of an answer and the serial number of the certificate behind it, or that there was none.
async fn ask(client: &Client, door: &Door) -> Option<(u16, u32)> {
    let answer = client.get(format!("https://127.0.0.1:{}/v1/status", door.port)).send().await.ok()?;
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
    let certificate = X509::from_der(info.peer_certificate().unwrap()).unwrap();
    let serial = certificate.serial_number().to_bn().unwrap().to_dec_str().unwrap().parse().unwrap();
    Some((answer.status().as_u16(), serial))
}

#[tokio::test]
async fn only_clients_with_a_certificate_are_answered_and_a_renewed_one_counts_without_a_restart() {
    let folder = std::env::temp_dir().join(format!("it_admin_tls_{}", uuid::Uuid::new_v4().simple()));
    fs::create_dir(&folder).unwrap();
    let (ours, strangers) = (Party::new("ours", 1, None), Party::new("strangers", 2, None));
    let server = Party::new("millrace", 10, Some(&ours));
    let (operator, stranger) =
        (Party::new("operator-anna", 20, Some(&ours)), Party::new("mallory", 21, Some(&strangers)));
    let place = |file: &str, content: &[u8]| -> PathBuf {
        let path = folder.join(file);
        fs::write(&path, content).unwrap();
        path
    };
    let (certificate, key) = (place("server.pem", &server.certificate()), place("server.key", &server.key()));
    let authority = place("clients.pem", &ours.certificate());
    let tls = format!(
        "[admin.tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\nclient_ca_file = {authority:?}\n"
    );
    let door = Door::open("auth = \"none\"", &tls).await;

    let anna = client(&ours, Some(&operator));
    assert_eq!(ask(&anna, &door).await, Some((200, 10)), "{}", door.log());
    assert_eq!(ask(&client(&ours, None), &door).await, None, "without a certificate");
    assert_eq!(ask(&client(&ours, Some(&stranger)), &door).await, None, "with one of another authority");
    assert_eq!(ask(&client(&strangers, Some(&operator)), &door).await, None, "a client that does not trust the server");
    assert!(door.request(reqwest::Method::GET, "/v1/status").send().await.is_err(), "without TLS");
    let pause = anna.post(format!("https://127.0.0.1:{}/v1/topics/orders/pause", door.port)).send().await.unwrap();
    assert_eq!(pause.status(), 200);
    assert_eq!(door.audit()[0]["certificate"], "operator-anna", "{:?}", door.audit());

    // A half-written file changes nothing; a whole pair does.
    let renewed = Party::new("millrace", 11, Some(&ours));
    place("server.pem", &renewed.certificate());
    door.until(|log| log.contains("the one before still is"), async || _ = ask(&anna, &door).await).await;
    assert_eq!(ask(&anna, &door).await, Some((200, 10)));
    place("server.key", &renewed.key());
    door.until(|log| log.contains("was read again"), async || _ = ask(&anna, &door).await).await;
    assert_eq!(ask(&anna, &door).await, Some((200, 11)));
    fs::remove_dir_all(folder).unwrap();
}
