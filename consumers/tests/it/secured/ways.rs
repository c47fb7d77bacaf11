//! Every way to reach each part: a small load lands exactly once.

use std::{
    fs,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use openssl::base64::encode_block;
use tokio::task::JoinSet;

use super::{
    Doors, Kafka, address, clickhouse,
    front::{Front, Rules},
    issuer::{Issuer, SECRET, Token},
    registry,
};
use crate::{small::Small, world::World};

const LANDS_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum ToRegistry {
    Tls,
    Certificate,
    Password,
    Token,
}

#[derive(Clone, Copy, Debug)]
enum ToClickHouse {
    Password,
    PasswordAndCertificate,
    Certificate,
}

/// Each way to each part at least once.
const WAYS: [(&str, ToRegistry, ToClickHouse); 7] = [
    ("TLS", ToRegistry::Tls, ToClickHouse::Password),
    ("TLS, client certificate", ToRegistry::Certificate, ToClickHouse::PasswordAndCertificate),
    ("TLS, PLAIN", ToRegistry::Password, ToClickHouse::Certificate),
    ("TLS, SCRAM-SHA-256", ToRegistry::Token, ToClickHouse::Certificate),
    ("TLS, SCRAM-SHA-512", ToRegistry::Password, ToClickHouse::PasswordAndCertificate),
    ("SCRAM-SHA-512", ToRegistry::Tls, ToClickHouse::Password),
    ("TLS, OAUTHBEARER", ToRegistry::Token, ToClickHouse::Certificate),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_each_part_lands_events_exactly_once() {
    let mut running = JoinSet::new();
    for way in WAYS {
        running.spawn(lands_by(way));
    }
    let mut lines = running.join_all().await;
    lines.sort_unstable();
    println!("{:<26} {:<14} {:<24} rows", "Kafka", "registry", "ClickHouse");
    lines.iter().for_each(|line| println!("{line}"));
}

async fn lands_by((to_kafka, to_registry, to_clickhouse): (&'static str, ToRegistry, ToClickHouse)) -> String {
    let mut small = Small::new().await;
    let doors = small.world.stack.secured.clone();
    let issuer = Issuer::start(&doors, Token::living(4)).await;
    let config = kafka(to_kafka, &doors, &issuer).put_into(&small.world.config, &small.world);
    let config = with_registry(config, to_registry, &small.world, &doors).await;
    small.world.config = with_clickhouse(config, to_clickhouse, &small.world, &doors).await;

    small.produce(0, 0..60).await;
    small.produce(0, 20..40).await;
    let mut running = small.run();
    small.until_rows(60, LANDS_WITHIN, &running).await;
    if to_kafka.contains("OAUTHBEARER") {
        // The broker ends connections whose token has expired, so these live by the second one and the third.
        let deadline = Instant::now() + LANDS_WITHIN;
        while issuer.given.load(Ordering::Relaxed) < 3 {
            assert!(Instant::now() < deadline, "no new token was asked for\n{}", running.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    small.produce(0, 50..100).await;
    small.until_rows(100, LANDS_WITHIN, &running).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    let log = running.log();
    doors.secrets().iter().for_each(|secret| assert!(!log.contains(secret), "{secret} in\n{log}"));
    small.world.clean_up().await;
    format!("{to_kafka:<26} {:<14} {:<24} 100", format!("{to_registry:?}"), format!("{to_clickhouse:?}"))
}

fn kafka<'a>(way: &str, doors: &'a Doors, issuer: &Issuer) -> Kafka<'a> {
    let (at, protocol) = match way {
        "TLS" => (&doors.kafka_tls, "ssl"),
        "TLS, client certificate" => (&doors.kafka_mtls, "ssl"),
        "SCRAM-SHA-512" => (&doors.kafka_sasl, "sasl_plaintext"),
        _ => (&doors.kafka_sasl_tls, "sasl_ssl"),
    };
    let sasl = match way.trim_start_matches("TLS, ") {
        "TLS" | "client certificate" => None,
        "OAUTHBEARER" => Some(doors.with_tokens(issuer, SECRET)),
        mechanism => Some(doors.with_password(mechanism)),
    };
    let client = way.ends_with("client certificate").then_some("client");
    Kafka { at, protocol, tls: way.starts_with("TLS").then(|| doors.files("ca", client)), sasl }
}

async fn with_registry(config: String, way: ToRegistry, world: &World, doors: &Doors) -> String {
    let files = doors.files("ca", None);
    let behind = async |rules| {
        let front = Front::start(address(&world.stack.registry), &doors.certificates, "server", rules).await;
        format!("https://localhost:{}/apis/ccompat/v7", front.port)
    };
    let authorized = |header: String| Rules { authorization: Some(header), ..Rules::default() };
    match way {
        ToRegistry::Tls => registry(&config, world, &doors.registry, &files),
        ToRegistry::Certificate => {
            let url = behind(Rules { certificate: true, ..Rules::default() }).await;
            registry(&config, world, &url, &doors.files("ca", Some("client")))
        }
        ToRegistry::Password => {
            let url = behind(authorized(format!("Basic {}", encode_block(b"reader:hunter2")))).await;
            registry(&config, world, &url, &format!("{files}\nusername = \"reader\"\npassword = \"hunter2\""))
        }
        ToRegistry::Token => {
            let url = behind(authorized("Bearer a-token".to_owned())).await;
            registry(&config, world, &url, &format!("{files}\ntoken = \"a-token\""))
        }
    }
}

async fn with_clickhouse(config: String, way: ToClickHouse, world: &World, doors: &Doors) -> String {
    let (certificate, password) = match way {
        ToClickHouse::Password => (false, true),
        ToClickHouse::PasswordAndCertificate => (true, true),
        ToClickHouse::Certificate => (true, false),
    };
    let stored = fs::read_to_string(&world.stack.admin.password_file).unwrap();
    let known_by_certificate = (!password).then(|| stored.trim_end().to_owned());
    let rules = Rules { certificate, known_by_certificate, authorization: None };
    let front = Front::start(address(&world.stack.clickhouse), &doors.certificates, "server", rules).await;
    let files = doors.files("ca", certificate.then_some("admin"));
    clickhouse(&config, world, &format!("https://localhost:{}", front.port), &files, password)
}
