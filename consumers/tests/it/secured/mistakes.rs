//! Every mistake with certificates, passwords and tokens ends in one problem of `millrace check`, in words that say what is
//! wrong and what to do.

use std::{fs, sync::Arc};

use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Doors, Kafka, address, clickhouse, elsewhere,
    front::{Front, Rules},
    issuer::{Issuer, SECRET, Token},
    registry,
};
use crate::world::{World, millrace};

/// A crowd of processes would only time out.
const AT_ONCE: usize = 6;

/// What is wrong, the configuration, the part that complains, and words of its complaint.
type Mistake = (String, String, &'static str, Vec<&'static str>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mistake_is_told_in_words_by_check_and_tells_no_secret() {
    let world = World::migrated().await;
    let doors = world.stack.secured.clone();
    let mut mistakes = of_kafka(&world, &doors).await;
    mistakes.extend(of_registry(&world, &doors).await);
    mistakes.extend(of_clickhouse(&world, &doors).await);
    let mut running = JoinSet::new();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    for (number, (what, config, part, words)) in mistakes.into_iter().enumerate() {
        let file = world.directory.join(format!("{number}.toml"));
        fs::write(&file, config).unwrap();
        let turns = Arc::clone(&turns);
        running.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let check = move || millrace(&["check", "--config", file.to_str().unwrap()]);
            (number, what, part, words, tokio::task::spawn_blocking(check).await.unwrap())
        });
    }
    let mut told = running.join_all().await;
    told.sort_by_key(|(number, ..)| *number);
    let mut failed = Vec::new();
    for (_, what, part, words, ran) in told {
        let problems = ran.problems();
        println!("{what}\n    {}", problems.join("\n    "));
        let tells = problems.len() == 1 && words.iter().all(|word| problems[0].contains(word));
        let leaks = doors.secrets().iter().any(|secret| ran.stdout.contains(secret) || ran.stderr.contains(secret));
        if ran.status != 1 || !tells || !problems[0].starts_with(part) || leaks {
            failed.push(format!("{what}, expected {words:?}, leaks {leaks}:\n{}{}", ran.stdout, ran.stderr));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    world.clean_up().await;
}

const UNTRUSTED: &[&str] = &["not of an authority that is trusted here", "ca_file"];
const EXPIRED: &[&str] = &["certificate has expired on", "renew it"];
const ANOTHER_HOST: &[&str] = &["for another host name: it is for localhost", "127.0.0.1"];
const NEEDED: &[&str] = &["asks for a certificate of the client", "certificate_file", "key_file"];
const STRANGER: &[&str] = &["does not accept the certificate of", "certificate_file"];

async fn of_kafka(world: &World, doors: &Doors) -> Vec<Mistake> {
    let ca = || Some(doors.files("ca", None));
    let put = |at: &str, protocol, tls, sasl| Kafka { at, protocol, tls, sasl }.put_into(&world.config, world);
    let wrong = |mechanism: &str| {
        Some(format!("mechanism = {mechanism:?}, username = \"millrace\", password = \"wrong-hunter2\""))
    };
    let token = async |token, secret: &str| {
        let issuer = Issuer::start(doors, token).await;
        put(&doors.kafka_sasl_tls, "sasl_ssl", ca(), Some(doors.with_tokens(&issuer, secret)))
    };
    let files = |ca: &str, client| Some(doors.files(ca, client));
    let crossed = doors.files("ca", Some("client")).replace("client.key", "admin.key");
    let refused: &[&str] = &["refuse user millrace", "kafka.sasl.username"];
    let token_refused: &[&str] = &["refuse the token", "expired", "audience"];
    [
        ("Kafka: another authority", put(&doors.kafka_tls, "ssl", files("other-ca", None), None), UNTRUSTED),
        ("Kafka: another host name", put(&elsewhere(&doors.kafka_tls), "ssl", ca(), None), ANOTHER_HOST),
        ("Kafka: an expired certificate", put(&doors.kafka_expired, "ssl", ca(), None), EXPIRED),
        ("Kafka: no client certificate", put(&doors.kafka_mtls, "ssl", ca(), None), NEEDED),
        ("Kafka: a stranger's", put(&doors.kafka_mtls, "ssl", files("ca", Some("stranger")), None), STRANGER),
        ("Kafka: wrong password, PLAIN", put(&doors.kafka_sasl_tls, "sasl_ssl", ca(), wrong("PLAIN")), refused),
        (
            "Kafka: wrong password, SCRAM-SHA-256",
            put(&doors.kafka_sasl_tls, "sasl_ssl", ca(), wrong("SCRAM-SHA-256")),
            refused,
        ),
        (
            "Kafka: wrong password, SCRAM-SHA-512, without TLS",
            put(&doors.kafka_sasl, "sasl_plaintext", None, wrong("SCRAM-SHA-512")),
            refused,
        ),
        (
            "Kafka: a mechanism that is not offered",
            put(&doors.kafka_sasl, "sasl_plaintext", None, wrong("PLAIN")),
            &["do not take SASL PLAIN", "kafka.sasl.mechanism"],
        ),
        ("Kafka: an expired token", token(Token::living(-600), SECRET).await, token_refused),
        (
            "Kafka: a token for somebody else",
            token(Token { audience: Some("others"), ..Token::living(600) }, SECRET).await,
            token_refused,
        ),
        (
            "Kafka: a token that somebody else has signed",
            token(Token { forged: true, ..Token::living(600) }, SECRET).await,
            token_refused,
        ),
        (
            "Kafka: a wrong secret for the issuer",
            token(Token::living(600), "wrong-hunter2").await,
            &["gives client millrace client no token", "HTTP 401, invalid_client", "kafka.sasl.oauth.client_id"],
        ),
        (
            "Kafka: TLS where there is none",
            put(&world.stack.kafka, "ssl", ca(), None),
            &["hangs up in the middle of the handshake", "port for TLS"],
        ),
        (
            "Kafka: no TLS where there is",
            put(&doors.kafka_tls, "plaintext", None, None),
            &["the brokers hang up", "kafka.security_protocol = \"plaintext\""],
        ),
    ]
    .map(|(what, config, words)| (what.to_owned(), config, "kafka", words.to_vec()))
    .into_iter()
    .chain([(
        "Kafka: the key of another certificate".to_owned(),
        put(&doors.kafka_mtls, "ssl", Some(crossed), None),
        "kafka",
        vec!["admin.key is not the key of the first certificate in", "client.pem"],
    )])
    .collect()
}

/// Mistakes with the certificates of a server that is reached by HTTP: what is wrong, its address, the files, the words.
async fn by_http(doors: &Doors, upstream: &str) -> Vec<(&'static str, String, String, &'static [&'static str])> {
    let front = async |server, certificate| {
        let rules = Rules { certificate, ..Rules::default() };
        let port = Front::start(upstream, &doors.certificates, server, rules).await.port;
        format!("localhost:{port}")
    };
    let (plain, identified) = (front("server", false).await, front("server", true).await);
    vec![
        ("another authority", plain.clone(), doors.files("other-ca", None), UNTRUSTED),
        ("another host name", elsewhere(&plain), doors.files("ca", None), ANOTHER_HOST),
        ("an expired certificate", front("expired", false).await, doors.files("ca", None), EXPIRED),
        ("no client certificate", identified.clone(), doors.files("ca", None), NEEDED),
        ("a stranger's", identified, doors.files("ca", Some("stranger")), STRANGER),
        (
            "TLS where there is none",
            upstream.replace("127.0.0.1", "localhost"),
            doors.files("ca", None),
            &["does not speak TLS"],
        ),
    ]
}

async fn of_registry(world: &World, doors: &Doors) -> Vec<Mistake> {
    let upstream = address(&world.stack.registry);
    let put =
        |address: &str, more: &str| registry(&world.config, world, &format!("https://{address}/apis/ccompat/v7"), more);
    let mut mistakes: Vec<Mistake> = by_http(doors, upstream)
        .await
        .into_iter()
        .map(|(what, address, files, words)| {
            (format!("registry: {what}"), put(&address, &files), "registry", words.to_vec())
        })
        .collect();
    let rules = Rules { authorization: Some("Bearer a-token".to_owned()), ..Rules::default() };
    let front = Front::start(upstream, &doors.certificates, "server", rules).await;
    for (what, more) in [
        ("registry: a wrong password", "username = \"reader\"\npassword = \"wrong-hunter2\""),
        ("registry: a wrong token", "token = \"wrong-hunter2\""),
    ] {
        let config = put(&format!("localhost:{}", front.port), &format!("{}\n{more}", doors.files("ca", None)));
        mistakes.push((what.to_owned(), config, "registry", vec!["refuses", "registry.username", "registry.token"]));
    }
    mistakes
}

async fn of_clickhouse(world: &World, doors: &Doors) -> Vec<Mistake> {
    let upstream = address(&world.stack.clickhouse);
    let put = |address: &str, more: &str| clickhouse(&world.config, world, &format!("https://{address}"), more, true);
    let mut mistakes: Vec<Mistake> = by_http(doors, upstream)
        .await
        .into_iter()
        .map(|(what, address, files, words)| {
            (format!("ClickHouse: {what}"), put(&address, &files), "clickhouse", words.to_vec())
        })
        .collect();
    let rules = Rules { certificate: true, known_by_certificate: Some(String::new()), ..Rules::default() };
    let front = Front::start(upstream, &doors.certificates, "server", rules).await;
    let url = format!("https://localhost:{}", front.port);
    mistakes.push((
        "ClickHouse: the certificate of another user".to_owned(),
        clickhouse(&world.config, world, &url, &doors.files("ca", Some("client")), false),
        "clickhouse",
        vec!["refuses user admin", "the certificate that it is known by"],
    ));
    let password = format!("password_file = {:?}", world.stack.admin.password_file);
    let front = Front::start(upstream, &doors.certificates, "server", Rules::default()).await;
    let config = put(&format!("localhost:{}", front.port), &doors.files("ca", None));
    mistakes.push((
        "ClickHouse: a wrong password".to_owned(),
        config.replace(&password, "password = \"wrong-hunter2\""),
        "clickhouse",
        vec!["refuses user admin", "its password"],
    ));
    mistakes
}
