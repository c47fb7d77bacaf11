//! Attacks on the admin API of a real process, by tokens of an issuer with real keys: all are refused.

mod page;

use std::time::{Duration, Instant};

use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    door::{Door, jwt},
    issuer::{Issuer, Key, base64url, now, unsigned},
};

/// What came of each attack; printed as a table.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String)>,
    wrong: Vec<String>,
}

impl Table {
    async fn refused(&mut self, attack: &str, request: RequestBuilder, status: u16, code: &str) {
        let answer = request.send().await.unwrap();
        let found = answer.status().as_u16();
        let challenged = answer.headers().contains_key("www-authenticate");
        let problem: Value = answer.json().await.unwrap_or_default();
        let found_code =
            problem["type"].as_str().unwrap_or_default().trim_start_matches("urn:millrace:problem:").to_owned();
        self.rows.push((attack.to_owned(), format!("{found} {found_code}")));
        if (found, &*found_code, challenged) != (status, code, status == 401) {
            self.wrong.push(format!("{attack}: {found} {problem}, expected {status} {code}"));
        }
    }

    fn held(&mut self, attack: &str, how: &str, well: bool) {
        self.rows.push((attack.to_owned(), how.to_owned()));
        if !well {
            self.wrong.push(format!("{attack}: {how}"));
        }
    }

    fn done(self) {
        let docs = include_str!("../../../docs/admin.md");
        for (attack, outcome) in &self.rows {
            println!("| {attack} | {outcome} |");
            assert!(docs.contains(&format!("| {attack} | ")), "{attack} is not in the table of docs/admin.md");
        }
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
    }
}

/// Claims with some of them changed; `null` takes one out.
fn with(mut claims: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = claims.as_object_mut().unwrap().remove(name),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

#[tokio::test]
async fn every_attack_by_token_is_refused() {
    let (rsa, p256, stranger, later) = (Key::rsa("rsa-1"), Key::p256("ec-1"), Key::rsa("rsa-1"), Key::p256("later"));
    let issuer = Issuer::with(&[&rsa, &p256]).await;
    let door = Door::open("", &jwt(&issuer)).await;
    door.until_logged("the issuer's keys are known").await;
    let status = |token: &str| door.request(Method::GET, "/v1/status").bearer_auth(token);
    let claims = issuer.claims(&["viewer"]);

    // What is right is let in: by either algorithm, and with clocks a little apart.
    let good = rsa.sign(&rsa.header(), &claims);
    for token in [
        good.clone(),
        p256.sign(&p256.header(), &claims),
        p256.sign(&p256.header(), &with(claims.clone(), json!({"aud": ["other", crate::issuer::AUDIENCE]}))),
        p256.sign(&p256.header(), &with(claims.clone(), json!({"exp": now() - 2, "nbf": now() + 2}))),
        p256.sign(&with(p256.header(), json!({"typ": "application/at+JWT"})), &claims),
    ] {
        let answer = status(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        let answer: Value = answer.json().await.unwrap();
        assert_eq!((&answer["topics"][0]["topic"], &answer["ready"]), (&json!("orders"), &json!(false)));
    }

    // A key that is new counts with the first token that is signed by it. Then every kid that is not known could make the
    // issuer be asked; it is not asked again for ten seconds.
    let mut table = Table::default();
    let asked = issuer.asked();
    issuer.has(&[&rsa, &p256, &later]);
    let rotated = status(&later.sign(&later.header(), &claims)).send().await.unwrap().status().as_u16();
    let fetches = issuer.asked() - asked;
    table.held("key rotated", &format!("{rotated}, keys fetched {fetches} times"), (rotated, fetches) == (200, 1));
    let storm = (0..100).map(|n| {
        let token = stranger.sign(&with(stranger.header(), json!({"kid": format!("storm-{n}")})), &claims);
        status(&token).send()
    });
    let answers = futures::future::join_all(storm).await;
    let refused = answers.iter().filter(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 401)).count();
    let fetches = issuer.asked() - asked - 1;
    table.held(
        "100 unknown kids at once",
        &format!("{refused} refused, keys fetched {fetches} times more"),
        (refused, fetches) == (100, 0),
    );

    let none = unsigned(&json!({"typ": "at+jwt", "alg": "none", "kid": "rsa-1"}), &claims) + ".";
    table.refused("alg none", status(&none), 401, "token_malformed").await;
    // The signature that a verifier accepts who takes the public key for a shared secret.
    let hmac_header = json!({"typ": "at+jwt", "alg": "HS256", "kid": "rsa-1"});
    let message = unsigned(&hmac_header, &claims);
    let secret = PKey::hmac(&rsa.public_pem()).unwrap();
    let mac = Signer::new(MessageDigest::sha256(), &secret).unwrap().sign_oneshot_to_vec(message.as_bytes()).unwrap();
    let hmac = format!("{message}.{}", base64url(&mac));
    table.refused("HS256 with the public key as secret", status(&hmac), 401, "token_algorithm").await;
    let confused = rsa.sign(&with(rsa.header(), json!({"kid": "ec-1"})), &claims);
    table.refused("RS256 under the kid of a P-256 key", status(&confused), 401, "token_key_unknown").await;
    let own =
        with(stranger.header(), json!({"jwk": stranger.jwk(), "jku": format!("{}/keys", issuer.url), "kid": "rsa-1"}));
    table
        .refused("wrong key, its own in the header", status(&stranger.sign(&own, &claims)), 401, "token_signature")
        .await;
    table.refused("wrong key", status(&stranger.sign(&stranger.header(), &claims)), 401, "token_signature").await;
    for (attack, header) in [
        ("unknown kid", with(rsa.header(), json!({"kid": "nobody"}))),
        ("kid of the key for encryption", with(rsa.header(), json!({"kid": "encryption"}))),
        ("no kid", with(rsa.header(), json!({"kid": null}))),
    ] {
        table.refused(attack, status(&rsa.sign(&header, &claims)), 401, "token_key_unknown").await;
    }
    let asked = with(rsa.header(), json!({"crit": ["exp"]}));
    table.refused("unknown critical extension", status(&rsa.sign(&asked, &claims)), 401, "token_malformed").await;
    for (attack, changes, code) in [
        ("wrong issuer", json!({"iss": "https://elsewhere.example"}), "token_issuer"),
        ("issuer missing", json!({"iss": null}), "token_claims"),
        ("wrong audience", json!({"aud": "another-api"}), "token_audience"),
        ("audience missing", json!({"aud": null}), "token_claims"),
        ("expired", json!({"exp": now() - 60}), "token_expired"),
        ("exp missing", json!({"exp": null}), "token_claims"),
        ("exp as text", json!({"exp": "9999999999"}), "token_claims"),
        ("nbf in the future", json!({"nbf": now() + 60}), "token_not_yet_valid"),
        ("nbf as text", json!({"nbf": "0"}), "token_claims"),
        ("subject missing", json!({"sub": null}), "token_claims"),
        ("ID token, by its nonce", json!({"nonce": "n-0S6"}), "token_type"),
        ("ID token, by its at_hash", json!({"at_hash": "MTIzNDU2"}), "token_type"),
    ] {
        table.refused(attack, status(&rsa.sign(&rsa.header(), &with(claims.clone(), changes))), 401, code).await;
    }
    let id_token = rsa.sign(&with(rsa.header(), json!({"typ": "JWT"})), &claims);
    table.refused("ID token, by its typ", status(&id_token), 401, "token_type").await;
    let untyped = rsa.sign(&with(rsa.header(), json!({"typ": null})), &claims);
    table.refused("no typ", status(&untyped), 401, "token_type").await;
    let (head, signature) = good.rsplit_once('.').unwrap();
    let stolen = unsigned(&rsa.header(), &issuer.claims(&["operator"])) + "." + signature;
    table.refused("tampered payload", status(&stolen), 401, "token_signature").await;
    table.refused("signature cut off", status(&format!("{head}.")), 401, "token_signature").await;
    table.refused("no JWT at all", status("hunter2"), 401, "token_malformed").await;
    table.refused("no token", door.request(Method::GET, "/v1/status"), 401, "token_missing").await;
    let basic = door.request(Method::GET, "/v1/status").basic_auth("admin", Some("admin"));
    table.refused("basic authentication", basic, 401, "token_missing").await;
    let large = rsa.sign(&rsa.header(), &with(claims.clone(), json!({"padding": "x".repeat(9 << 10)})));
    table.refused("oversized token", status(&large), 401, "token_too_large").await;
    let in_query = door.request(Method::GET, &format!("/v1/status?access_token={good}"));
    table.refused("token in the query string", in_query, 401, "token_in_query").await;
    table.refused("several Authorization headers", status(&good).bearer_auth(&good), 401, "token_twice").await;

    let pause = |roles: &[&str]| {
        let token = rsa.sign(&rsa.header(), &issuer.claims(roles));
        door.request(Method::POST, "/v1/topics/orders/pause").bearer_auth(token)
    };
    table.refused("no role", pause(&[]), 403, "forbidden").await;
    table.refused("role of another permission", pause(&["viewer"]), 403, "forbidden").await;
    table.refused("role as nobody has it", pause(&["Operator", "operator "]), 403, "forbidden").await;
    let operator = rsa.sign(&rsa.header(), &issuer.claims(&["operator"]));
    let drain = door.request(Method::POST, "/v1/drain").bearer_auth(&operator);
    table.refused("operator without process:control", drain, 403, "forbidden").await;

    let log = door.log();
    for token in [&good, &none, &hmac, &stolen] {
        let (head, tail) = token.split_at(token.len() / 2);
        table.held("token in the log", "not there", !log.contains(head) && !log.contains(tail));
    }
    table.done();

    let audit = door.audit();
    let forbidden: Vec<&Value> = audit.iter().filter(|line| line["outcome"] == "forbidden").collect();
    assert_eq!(forbidden.len(), 4, "{audit:#?}");
    assert_eq!(
        [&forbidden[0]["who"], &forbidden[0]["action"], &forbidden[0]["topic"]],
        [&json!("anna"), &json!("topic.pause"), &json!("orders")]
    );
    let strangers = audit.iter().filter(|line| line["message"] == "refused").count();
    assert_eq!(strangers, 20, "those who are not known do not fill the log");
}

#[tokio::test]
async fn an_issuer_that_marks_tokens_by_a_claim_or_not_at_all_can_be_taken_and_its_id_tokens_cannot() {
    let key = Key::p256("ec-1");
    let issuer = Issuer::with(&[&key]).await;
    let plain = with(key.header(), json!({"typ": "JWT"}));
    let cases = [
        ("claim", json!({"typ": "Bearer"}), 200),
        ("claim", json!({"typ": "ID"}), 401),
        ("claim", json!({"typ": "Refresh"}), 401),
        ("claim", json!({}), 401),
        ("claim", json!({"typ": "Bearer", "nonce": "n-0S6"}), 401),
        ("unmarked", json!({}), 200),
        ("unmarked", json!({"typ": "ID"}), 401),
        ("unmarked", json!({"at_hash": "MTIzNDU2"}), 401),
    ];
    for token_type in ["claim", "unmarked"] {
        let sections = jwt(&issuer).replace("leeway = \"5s\"", &format!("token_type = {token_type:?}"));
        let door = Door::open("", &sections).await;
        for (_, changes, expected) in cases.iter().filter(|(of, ..)| *of == token_type) {
            let token = key.sign(&plain, &with(issuer.claims(&["viewer"]), changes.clone()));
            let answer = door.request(Method::GET, "/v1/status").bearer_auth(token).send().await.unwrap();
            assert_eq!(answer.status(), *expected, "{token_type} {changes}");
        }
    }
}

#[tokio::test]
async fn without_tokens_no_page_in_a_browser_is_answered() {
    let door = Door::open("auth = \"none\"", "").await;
    let pause = || door.request(Method::POST, "/v1/topics/orders/pause");
    assert_eq!(pause().send().await.unwrap().status(), 200);
    let mut table = Table::default();
    let page = pause().header("origin", "https://elsewhere.example");
    table.refused("page in a browser, without tokens", page, 403, "foreign_page").await;
    let image = door.request(Method::GET, "/v1/status").header("sec-fetch-site", "cross-site");
    table.refused("image of a page in a browser, without tokens", image, 403, "foreign_page").await;
    let rebound = pause().header("host", "elsewhere.example:9465");
    table.refused("DNS rebinding, without tokens", rebound, 403, "foreign_page").await;
    // The page that it serves itself reads, and commands nothing.
    let own = |method, path| door.request(method, path).header("sec-fetch-site", "same-origin");
    assert_eq!(own(Method::GET, "/v1/status").send().await.unwrap().status(), 200);
    table.refused("command by the own page, without tokens", own(Method::POST, "/v1/drain"), 403, "foreign_page").await;
    table.done();
}

#[tokio::test]
async fn oversized_and_slow_requests_are_refused() {
    let key = Key::p256("ec-1");
    let issuer = Issuer::with(&[&key]).await;
    let door = Door::open("request_timeout = \"1s\"\nmax_connections = 8", &jwt(&issuer)).await;
    let token = key.sign(&key.header(), &issuer.claims(&["operator"]));
    let replay = || door.request(Method::POST, "/v1/topics/orders/dead-letters/replay").bearer_auth(&token);
    let mut table = Table::default();
    let large = json!({"from": "x".repeat(20 << 10)});
    table.refused("oversized body", replay().json(&large), 413, "body_too_large").await;
    let form = replay().header("content-type", "application/x-www-form-urlencoded").body("a=b");
    table.refused("form of another site", form, 415, "body_media_type").await;
    table.refused("unknown field", replay().json(&json!({"form": "1"})), 400, "body_invalid").await;
    table
        .refused(
            "deep nesting",
            replay().header("content-type", "application/json").body("[".repeat(9000)),
            400,
            "body_invalid",
        )
        .await;

    // Announced by nothing, so that the end of the patience has to come while it is read.
    let head = format!(
        "POST /v1/topics/orders/dead-letters/replay HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n"
    );
    let endless =
        head.clone() + "transfer-encoding: chunked\r\n\r\n" + &format!("4000\r\n{}\r\n", " ".repeat(0x4000)).repeat(2);
    let mut row = |attack: &str, (answer, took): (String, Duration), expected: &str| {
        let line = first_line(&answer);
        let well = if expected.is_empty() { line.is_empty() } else { line.contains(expected) };
        let well = well && took < Duration::from_secs(4);
        let said = if line.is_empty() { "connection closed".to_owned() } else { line };
        table.held(attack, &format!("{said} after {:.1} s", took.as_secs_f64()), well);
    };
    let slow_body = head.clone() + "content-length: 100\r\n\r\n{";
    let slow_head = "GET /v1/status HTTP/1.1\r\nhost: x\r\nx-slow: ";
    let long_head = format!("GET /v1/status HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(20 << 10));
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "x-many: 1\r\n".repeat(100));
    let (endless, slow_body, slow_head, nothing, long_head, many) = tokio::join!(
        raw(&door, &endless),
        raw(&door, &slow_body),
        raw(&door, slow_head),
        raw(&door, ""),
        raw(&door, &long_head),
        raw(&door, &many)
    );
    row("endless body", endless, "413");
    row("slow body", slow_body, "408");
    row("slow header", slow_head, "");
    row("connection that asks nothing", nothing, "");
    row("oversized header", long_head, "431");
    row("too many headers", many, "431");

    // Eight connections that say nothing are all that there may be; an honest caller is answered once they are closed.
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(("127.0.0.1", door.port)).await.unwrap());
    }
    let begun = Instant::now();
    let answer = door.request(Method::GET, "/v1/status").bearer_auth(&token).send().await.unwrap();
    let waited = begun.elapsed();
    let how = format!("{} after {:.1} s", answer.status().as_u16(), waited.as_secs_f64());
    table.held("20 idle connections, of 8 allowed", &how, answer.status() == 200 && waited < Duration::from_secs(8));
    table.done();
    let done = door.audit().into_iter().filter(|line| line["outcome"] == "given_up").count();
    assert_eq!(done, 1, "the slow body is told of: {:#?}", door.audit());
}

#[tokio::test]
async fn keys_that_are_not_there_let_nobody_in() {
    // Nobody listens where the issuer will be.
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let old = Key::p256("old");
    let sham = Issuer::with(&[]).await;
    let section = jwt(&sham).replace(&sham.url, &format!("http://{address}/realms/test"));
    let door = Door::open("", &section).await;
    let claims = with(sham.claims(&["viewer"]), json!({"iss": format!("http://{address}/realms/test")}));
    let status = |key: &Key| {
        let token = key.sign(&key.header(), &claims);
        door.request(Method::GET, "/v1/status").bearer_auth(token)
    };
    let mut table = Table::default();
    table.refused("JWKS down at the start", status(&old), 503, "keys_unavailable").await;
    let check = door.check().await;
    assert!(check.starts_with("✗ admin") && check.contains("the keys of issuer"), "{check}");

    let _issuer = Issuer::on(TcpListener::bind(address).await.unwrap(), &[&old]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(&old).send().await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline, "{}", door.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let check = door.check().await;
    assert!(check.contains("has 1 key for signatures"), "{check}");
    table.done();
}

/// Sends this and no more; what comes back until the other side closes, and how long that takes.
async fn raw(door: &Door, text: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", door.port)).await.unwrap();
    _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    // A reset is an end too.
    _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

fn first_line(answer: &str) -> String {
    answer.lines().next().unwrap_or_default().to_owned()
}
