//! An issuer of tokens for the page's test: one key, served as a JWKS on loopback.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use openssl::{
    base64,
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    nid::Nid,
    pkey::Private,
    sha::sha256,
};
use serde_json::{Value, json};

pub(super) const AUDIENCE: &str = "millrace-page";
const KEY_ID: &str = "page";
/// A client that asks nothing must not hold the others up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Signs tokens; its keys are served as long as this process lives.
pub(super) struct Issuer {
    pub(super) url: String,
    key: EcKey<Private>,
}

impl Issuer {
    /// # Errors
    /// If there is no port or no key.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen for who asks for keys")?;
        let url = format!("http://{}", listener.local_addr().context("ask for the address listened on")?);
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).context("find P-256")?;
        let key = EcKey::generate(&curve).context("make a key")?;
        let keys = keys(&key)?.to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who hangs up asks again.
                _ = answer(stream, &keys);
            }
        });
        Ok(Self { url, key })
    }

    /// An access token with these roles, for some minutes.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub(super) fn token(&self, roles: &[&str]) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("tell the time")?.as_secs();
        let header = json!({"typ": "at+jwt", "alg": "ES256", "kid": KEY_ID});
        let claims = json!({
            "iss": self.url, "aud": AUDIENCE, "sub": "page", "roles": roles, "iat": now, "exp": now + 600,
        });
        let message =
            format!("{}.{}", url_safe(header.to_string().as_bytes()), url_safe(claims.to_string().as_bytes()));
        let signature = EcdsaSig::sign(&sha256(message.as_bytes()), &self.key).context("sign a token")?;
        let half = |number: &openssl::bn::BigNumRef| number.to_vec_padded(32).context("write a signature");
        let signature = [half(signature.r())?, half(signature.s())?].concat();
        Ok(format!("{message}.{}", url_safe(&signature)))
    }
}

fn keys(key: &EcKey<Private>) -> Result<Value> {
    let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
    key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut *BigNumContext::new()?)?;
    let (x, y) = (url_safe(&x.to_vec_padded(32)?), url_safe(&y.to_vec_padded(32)?));
    Ok(json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": x, "y": y}]}))
}

/// Whatever is asked for, the answer is the keys.
fn answer(mut stream: TcpStream, keys: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&piece[..read]),
        }
    }
    let length = keys.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{keys}"
    )
}

fn url_safe(bytes: &[u8]) -> String {
    base64::encode_block(bytes).replace('+', "-").replace('/', "_").replace(['=', '\n'], "")
}
