//! Secrets of the configuration never show in what a process says, whatever the level of its log lines.

use std::{fs, time::Duration};

use crate::small::Small;

const SOON: Duration = Duration::from_secs(20);

/// A secret for each key that takes one; each may be found by its name.
const SASL: &str = "s3cret-of-sasl";
const KEY: &str = "s3cret-of-the-key";
const REGISTRY: &str = "s3cret-of-the-registry";
const HEADER: &str = "s3cret-of-the-receiver";

fn assert_kept(said: &str, clickhouse: &str) {
    // As HTTP carries the registry's.
    let basic = "bWlsbHJhY2U6czNjcmV0";
    for secret in ["s3cret", basic, clickhouse] {
        let line = said.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in {line:?}");
    }
}

#[tokio::test]
async fn no_secret_is_said_at_trace_level_whether_all_goes_well_or_nothing() {
    let mut small = Small::new().await;
    let clickhouse = fs::read_to_string(&small.world.stack.admin.password_file).unwrap().trim_end().to_owned();
    small.set("[clickhouse]", &format!("username = \"millrace\"\npassword = \"{REGISTRY}\"\n[clickhouse]"));
    small.set("#endpoint = \"http://localhost:4318\"", "endpoint = \"http://127.0.0.1:1\"");
    small.set("#sample_ratio = 0.01", "sample_ratio = 1.0");
    small.set("#headers_file = \"/run/secrets/traces\"", &format!("headers = \"authorization: Bearer {HEADER}\""));
    small.produce(0, 0..3).await;
    let mut running = small.run_at("trace");
    small.until_rows(3, SOON, &running).await;
    running.until_logged("traces are not received", SOON).await;
    running.terminate().await;
    let said = running.log();
    assert!(said.contains("\"level\":\"TRACE\"") || said.contains("\"level\":\"DEBUG\""), "{said}");
    assert_kept(&said, &clickhouse);

    // Kafka does not speak as it is spoken to, and the registry does not answer.
    let kafka = format!(
        "[kafka]\nsecurity_protocol = \"sasl_plaintext\"\nsasl.mechanism = \"PLAIN\"\nsasl.username = \"millrace\"\n\
         sasl.password = \"{SASL}\""
    );
    small.set("[kafka]", &kafka);
    let registry = small.world.stack.registry.clone();
    small.set(&registry, "http://127.0.0.1:1");
    let checked = small.world.check(&small.world.config);
    assert!(checked.status != 0, "{}", checked.stdout);
    assert_kept(&format!("{}{}", checked.stdout, checked.stderr), &clickhouse);
    let mut running = small.run_at("trace");
    running.until_logged("SASL", SOON).await;
    running.terminate().await;
    assert_kept(&running.log(), &clickhouse);

    // A key that does not open.
    let key = small.world.directory.join("client.key");
    fs::write(&key, "no key").unwrap();
    small.set("\"sasl_plaintext\"", "\"sasl_ssl\"");
    let tls =
        format!("[kafka.tls]\ncertificate_file = {key:?}\nkey_file = {key:?}\nkey_password = \"{KEY}\"\n[registry]");
    small.set("[registry]", &tls);
    let ran = small.world.millrace("run", &["--log-level", "trace"], &small.world.config);
    assert!(ran.status == 1 && ran.stderr.contains("kafka.tls.certificate_file"), "{}", ran.stderr);
    assert_kept(&ran.stderr, &clickhouse);
    small.world.clean_up().await;
}
