//! Every way to reach Kafka and the registry that is encrypted or identified: events are acknowledged.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_producers::{EventPublisher, OAuth, Sasl, Secret, Security, Tls};
use millrace_schemas::OrderEvent;
use openssl::{base64::encode_block, hash::MessageDigest, pkey::PKey, sign::Signer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::stack::{event, stack, topic};

/// The secured doors of the stack, as far as they are used here.
#[derive(Clone, serde::Deserialize)]
pub(crate) struct Doors {
    kafka_tls: String,
    kafka_mtls: String,
    kafka_sasl_tls: String,
    kafka_sasl: String,
    registry: String,
    kafka_user: String,
    kafka_password_file: PathBuf,
    certificates: PathBuf,
    token_key_file: PathBuf,
    token_key: String,
    token_issuer: String,
    token_audience: String,
}

#[tokio::test]
async fn every_way_to_kafka_and_a_registry_by_tls_deliver_events() {
    let doors = stack().secured;
    let tls = |client: Option<&str>| {
        let file = |name: String| Some(doors.certificates.join(name));
        Tls {
            ca_file: file("ca.pem".to_owned()),
            certificate_file: client.and_then(|name| file(format!("{name}.pem"))),
            key_file: client.and_then(|name| file(format!("{name}.key"))),
            key_password: None,
        }
    };
    let password = fs::read_to_string(&doors.kafka_password_file).unwrap();
    let sasl = |mechanism: &str| Sasl::new(mechanism, &doors.kafka_user, &password);
    let oauth = OAuth {
        token_url: issuer(doors.clone()).await,
        client_id: "shop".to_owned(),
        client_secret: Secret::new("hunter2"),
        scope: None,
        tls: Tls::default(),
    };
    let tokens = Sasl { oauth: Some(oauth), ..Sasl::new("OAUTHBEARER", "", "") };
    let ways = [
        ("TLS", &doors.kafka_tls, Security::Ssl { tls: tls(None) }),
        ("TLS, client certificate", &doors.kafka_mtls, Security::Ssl { tls: tls(Some("client")) }),
        ("TLS, PLAIN", &doors.kafka_sasl_tls, Security::SaslSsl { sasl: sasl("PLAIN"), tls: tls(None) }),
        (
            "TLS, SCRAM-SHA-256",
            &doors.kafka_sasl_tls,
            Security::SaslSsl { sasl: sasl("SCRAM-SHA-256"), tls: tls(None) },
        ),
        ("SCRAM-SHA-512", &doors.kafka_sasl, Security::SaslPlaintext { sasl: sasl("SCRAM-SHA-512") }),
        ("TLS, OAUTHBEARER", &doors.kafka_sasl_tls, Security::SaslSsl { sasl: tokens, tls: tls(None) }),
    ];
    let mut config = topic(1, &[]).await;
    config.registry.url = doors.registry.clone();
    config.registry.tls = tls(None);
    config.properties.insert("broker.address.family".into(), "v4".into());
    for (offset, (way, at, security)) in (0..).zip(ways) {
        let mut config = config.clone();
        (config.bootstrap_servers, config.security) = (at.clone(), security);
        let publisher =
            EventPublisher::<OrderEvent>::connect(config).await.unwrap_or_else(|error| panic!("{way}: {error}"));
        let delivered = publisher.publish(&event()).await.unwrap_or_else(|error| panic!("{way}: {error}"));
        assert_eq!(delivered.offset, offset, "{way}");
    }
}

/// An issuer that gives a token to whoever asks as `shop`; its address.
async fn issuer(doors: Doors) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"grant_type=client_credentials") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            let expected = format!("Basic {}", encode_block(b"shop:hunter2"));
            assert!(String::from_utf8(request).unwrap().contains(&expected));
            let body = format!(r#"{{"access_token":"{}","token_type":"bearer","expires_in":600}}"#, jwt(&doors));
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    url
}

fn jwt(doors: &Doors) -> String {
    let encoded =
        |bytes: &[u8]| encode_block(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = serde_json::json!({ "alg": "RS256", "kid": doors.token_key });
    let claims = serde_json::json!({
        "iss": doors.token_issuer, "aud": doors.token_audience, "sub": "shop", "iat": now, "exp": now + 600,
    });
    let signed = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
    let key = PKey::private_key_from_pem(&fs::read(&doors.token_key_file).unwrap()).unwrap();
    let signature = Signer::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(signed.as_bytes()).unwrap();
    format!("{signed}.{}", encoded(&signature))
}
