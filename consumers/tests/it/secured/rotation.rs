//! Certificates that change while `millrace run` runs: the new ones are used, half-written and bad ones do no harm.

use std::{fs, path::Path, time::Duration};

use millrace_certificates::{Authority, Issued, Wanted};

use super::{
    Doors, Kafka, address, clickhouse,
    front::{Front, Rules},
};
use crate::small::{Running, Small};

const SOON: Duration = Duration::from_secs(20);

/// A certificate of the client, and its key, in files of the test's own.
struct Files<'a> {
    folder: &'a Path,
    name: &'a str,
}

impl Files<'_> {
    fn keys(&self, doors: &Doors) -> String {
        let [certificate, key] = ["pem", "key"].map(|end| self.folder.join(format!("{}.{end}", self.name)));
        format!("{}\ncertificate_file = {certificate:?}\nkey_file = {key:?}", doors.files("ca", None))
    }

    fn write(&self, issued: &Issued) {
        self.write_certificate(issued);
        fs::write(self.folder.join(format!("{}.key", self.name)), &issued.key).unwrap();
    }

    fn write_certificate(&self, issued: &Issued) {
        fs::write(self.folder.join(format!("{}.pem", self.name)), &issued.certificate).unwrap();
    }
}

/// Lands another row by a connection of its own; how many there are then.
async fn one_more(small: &Small, rows: u32, running: &Running) -> u32 {
    assert!(rows < 30, "{}", running.log());
    // The pool lets a connection go that has been idle for two seconds.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    small.produce(0, rows..rows + 1).await;
    small.until_rows((rows + 1).into(), SOON, running).await;
    rows + 1
}

fn authority(doors: &Doors, name: &str) -> Authority {
    let [certificate, key] =
        ["pem", "key"].map(|end| fs::read_to_string(doors.certificates.join(format!("{name}.{end}"))).unwrap());
    Authority::of(&Issued { certificate, key }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_change_are_used_without_a_restart_and_bad_ones_do_no_harm() {
    let mut small = Small::new().await;
    let doors = small.world.stack.secured.clone();
    let directory = small.world.directory.clone();
    let [to_kafka, to_clickhouse] = ["kafka", "clickhouse"].map(|name| Files { folder: &directory, name });
    let (ours, other) = (authority(&doors, "ca"), authority(&doors, "other-ca"));
    let issue = |authority: &Authority, name| authority.issue(&Wanted::new(name, &[])).unwrap();
    to_kafka.write(&issue(&ours, "first"));
    to_clickhouse.write(&issue(&ours, "first"));

    let rules = Rules { certificate: true, ..Rules::default() };
    let front = Front::start(address(&small.world.stack.clickhouse), &doors.certificates, "server", rules).await;
    let kafka = Kafka { at: &doors.kafka_mtls, protocol: "ssl", tls: Some(to_kafka.keys(&doors)), sasl: None };
    let config = kafka.put_into(&small.world.config, &small.world);
    let url = format!("https://localhost:{}", front.port);
    small.world.config = clickhouse(&config, &small.world, &url, &to_clickhouse.keys(&doors), true);
    small.produce(0, 0..20).await;
    let mut running = small.run();
    small.until_rows(20, SOON, &running).await;
    let series = |part| format!("millrace_certificate_expiry_seconds{{part=\"{part}\",file_kind=\"client\"}}");
    for part in ["kafka.tls", "clickhouse"] {
        let days = running.metric(&series(part)).await.unwrap() / 86_400.0;
        assert!((3649.0..3651.0).contains(&days), "{part}: {days}");
    }

    // ClickHouse: half of a pair is left alone, and the whole of it used for the next connection.
    let second = issue(&ours, "second");
    let mut rows = 20;
    to_clickhouse.write_certificate(&second);
    while !running.log().contains("certificates have changed and cannot be used") {
        rows = one_more(&small, rows, &running).await;
    }
    to_clickhouse.write(&second);
    while !front.seen.lock().unwrap().contains(&"second".to_owned()) {
        rows = one_more(&small, rows, &running).await;
    }
    // Kafka: a pair that is whole and that the brokers refuse. The topic tries on, and the process lives.
    to_kafka.write(&issue(&other, "stranger"));
    running.until_logged("drain and join again", SOON).await;
    running.until_logged("SSL alert number", SOON).await;
    small.produce(0, rows - 5..rows + 5).await;
    to_kafka.write(&issue(&ours, "third"));
    small.until_rows((rows + 5).into(), SOON, &running).await;
    assert_eq!(running.log().matches("certificates for Kafka have changed").count(), 2, "{}", running.log());
    assert!(running.terminate().await.0.success(), "{}", running.log());
    assert!(!running.log().contains("PRIVATE KEY"));
    small.world.clean_up().await;
}
