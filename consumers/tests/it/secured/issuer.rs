//! An issuer of tokens, by OAuth 2.0 over TLS: whoever has the secret gets a JWT by RS256, which the stack's Kafka believes.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use openssl::{base64::encode_block, hash::MessageDigest, pkey::PKey, rsa::Rsa, sign::Signer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Doors, front};

pub(crate) const CLIENT: &str = "millrace client";
pub(crate) const SECRET: &str = "hunter2:of/the-client";

/// What a token says.
#[derive(Clone, Copy)]
pub(crate) struct Token {
    /// For how long it lives from now; negative for one that has expired.
    pub(crate) seconds: i64,
    /// For whom it is; `None` for Kafka.
    pub(crate) audience: Option<&'static str>,
    /// Whether somebody else has signed it.
    pub(crate) forged: bool,
}

impl Token {
    pub(crate) const fn living(seconds: i64) -> Self {
        Self { seconds, audience: None, forged: false }
    }
}

pub(crate) struct Issuer {
    pub(crate) url: String,
    /// How many tokens it has given.
    pub(crate) given: Arc<AtomicUsize>,
    /// Whether it takes connections and says nothing any more.
    pub(crate) silent: Arc<AtomicBool>,
}

impl Issuer {
    pub(crate) async fn start(doors: &Doors, token: Token) -> Self {
        let acceptor = front::acceptor(&doors.certificates, "server", false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
        let given = Arc::new(AtomicUsize::new(0));
        let silent = Arc::new(AtomicBool::new(false));
        let (counter, holds, doors) = (Arc::clone(&given), Arc::clone(&silent), doors.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, counter, doors) = (acceptor.clone(), Arc::clone(&counter), doors.clone());
                let holds = holds.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    if holds {
                        std::future::pending::<()>().await;
                    }
                    let mut stream = front::accept(&acceptor, stream).await?;
                    let (head, mut body) = front::head(&mut stream).await?;
                    let length = front::header(&head, "content-length")?.parse::<usize>().ok()?;
                    while body.len() < length {
                        stream.read_buf(&mut body).await.ok()?;
                    }
                    let credentials = "millrace%20client:hunter2%3Aof%2Fthe-client";
                    let expected = format!("Basic {}", encode_block(credentials.as_bytes()));
                    let may = front::header(&head, "authorization") == Some(&expected)
                        && body == b"grant_type=client_credentials&scope=kafka%20orders";
                    let (status, answer) = if may {
                        counter.fetch_add(1, Ordering::Relaxed);
                        let life = token.seconds.abs();
                        let jwt = jwt(&doors, token);
                        ("200 OK", format!(r#"{{"access_token":"{jwt}","token_type":"Bearer","expires_in":{life}}}"#))
                    } else {
                        // Some tell what they were given.
                        let said = "no client with secret wrong-hunter2";
                        ("401 Unauthorized", format!(r#"{{"error":"invalid_client","error_description":"{said}"}}"#))
                    };
                    let length = answer.len();
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}"
                    );
                    stream.write_all(answer.as_bytes()).await.ok()?;
                    stream.shutdown().await.ok()
                });
            }
        });
        Self { url, given, silent }
    }
}

fn jwt(doors: &Doors, token: Token) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": doors.token_key });
    let claims = serde_json::json!({
        "iss": doors.token_issuer, "aud": token.audience.unwrap_or(&doors.token_audience), "sub": "millrace",
        "iat": now - 3600, "exp": now + token.seconds, "scope": "kafka",
    });
    let signed = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
    let key = if token.forged {
        PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
    } else {
        PKey::private_key_from_pem(&fs::read(&doors.token_key_file).unwrap()).unwrap()
    };
    let signature = Signer::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(signed.as_bytes()).unwrap();
    format!("{signed}.{}", encoded(&signature))
}

fn encoded(bytes: &[u8]) -> String {
    encode_block(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}
