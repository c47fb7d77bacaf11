//! An issuer of tokens with real keys: it serves them as a JWKS over HTTP, counts who asks, and signs whatever a test wants.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Router, routing::get};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    sha::sha256,
    sign::Signer,
};
use serde_json::{Value, json};

pub(crate) const AUDIENCE: &str = "millrace-test";

pub(crate) struct Issuer {
    pub(crate) url: String,
    document: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

/// A key pair and its id.
pub(crate) struct Key {
    pub(crate) id: String,
    pair: Pair,
}

enum Pair {
    Rsa(Rsa<Private>),
    P256(EcKey<Private>),
}

impl Key {
    pub(crate) fn rsa(id: &str) -> Self {
        Self { id: id.to_owned(), pair: Pair::Rsa(Rsa::generate(2048).unwrap()) }
    }

    pub(crate) fn p256(id: &str) -> Self {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Self { id: id.to_owned(), pair: Pair::P256(EcKey::generate(&curve).unwrap()) }
    }

    /// The public half.
    pub(crate) fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(rsa) => json!({
                "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id,
                "n": base64url(&rsa.n().to_vec()), "e": base64url(&rsa.e().to_vec()),
            }),
            Pair::P256(key) => {
                let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
                let mut context = BigNumContext::new().unwrap();
                key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context).unwrap();
                let text = |number: BigNum| base64url(&number.to_vec_padded(32).unwrap());
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": text(x), "y": text(y)})
            }
        }
    }

    /// The public half as people put it into files.
    pub(crate) fn public_pem(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(rsa) => rsa.public_key_to_pem().unwrap(),
            Pair::P256(key) => key.public_key_to_pem().unwrap(),
        }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
        }
    }

    /// A token with this header and these claims.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = match &self.pair {
            Pair::Rsa(rsa) => {
                let key = PKey::from_rsa(rsa.clone()).unwrap();
                Signer::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(message.as_bytes()).unwrap()
            }
            Pair::P256(key) => {
                let signature = EcdsaSig::sign(&sha256(message.as_bytes()), key).unwrap();
                [signature.r(), signature.s()].map(|half| half.to_vec_padded(32).unwrap()).concat()
            }
        };
        format!("{message}.{}", base64url(&signature))
    }

    /// A header as RFC 9068 wants it.
    pub(crate) fn header(&self) -> Value {
        json!({"typ": "at+jwt", "alg": self.algorithm(), "kid": self.id})
    }
}

impl Issuer {
    /// An issuer that has these keys.
    pub(crate) async fn with(keys: &[&Key]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, keys)
    }

    pub(crate) fn on(listener: tokio::net::TcpListener, keys: &[&Key]) -> Self {
        let address: SocketAddr = listener.local_addr().unwrap();
        let url = format!("http://{address}/realms/test");
        let (document, asked) = (Arc::<Mutex<String>>::default(), Arc::<AtomicUsize>::default());
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        let keys_of = {
            let (document, asked) = (Arc::clone(&document), Arc::clone(&asked));
            move || {
                asked.fetch_add(1, Ordering::SeqCst);
                let document = document.lock().unwrap().clone();
                async move { document }
            }
        };
        let routes = Router::new()
            .route("/realms/test/.well-known/openid-configuration", get(move || async move { discovery }))
            .route("/realms/test/keys", get(keys_of));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let issuer = Self { url, document, asked };
        issuer.has(keys);
        issuer
    }

    /// These are its keys from now on, besides some that nobody can use here.
    pub(crate) fn has(&self, keys: &[&Key]) {
        let others = [
            json!({"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "encryption", "n": "AQAB", "e": "AQAB"}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            json!({"kty": "of the future", "kid": "x"}),
            json!("no key"),
        ];
        let keys: Vec<Value> = others.into_iter().chain(keys.iter().map(|key| key.jwk())).collect();
        *self.document.lock().unwrap() = json!({ "keys": keys }).to_string();
    }

    /// How often its keys were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Claims of a good access token with these roles.
    pub(crate) fn claims(&self, roles: &[&str]) -> Value {
        json!({
            "iss": self.url, "aud": AUDIENCE, "sub": "anna", "azp": "millrace-cli", "roles": roles,
            "iat": now(), "exp": now() + 300, "jti": "1",
        })
    }
}

/// Header and claims, to be signed.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()))
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    openssl::base64::encode_block(bytes).replace('+', "-").replace('/', "_").replace('=', "")
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}
