//! Configuration texts and what is said of them.

mod admin;
mod kubernetes;
mod routes;
mod security;
mod shards;
mod traces;

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use millrace_pipeline::{
    decode::DecodeLimits,
    share::{Share, ShareLimit},
    spec::{MissPolicy, Source},
};

use super::{Config, DEFAULT, LogFormat, Outside, Problem, Retry, SecurityProtocol, StartOffset, parse};

const MINIMAL: &str = r#"
[kafka]
bootstrap_servers = "localhost:9092"
[registry]
url = "http://localhost:8081/"
[clickhouse]
url = "http://localhost:8123"
database = "millrace"
user = "millrace"
password = "hunter2"
[[topics]]
name = "orders"
table = "orders"
dead_letter_topic = "orders.dead"
id = "event_id"
[topics.columns]
event_id = "event_id"
"#;

fn read(text: &str) -> (Result<Config, Vec<Problem>>, BTreeSet<String>) {
    let outside = Outside {
        directory: Path::new("/conf"),
        variable: &|name| (name == "SET").then(|| "from the environment".to_owned()),
        file: &|path| match path {
            path if path.ends_with("missing") => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(format!("content of {}\n", path.display())),
        },
    };
    parse(text, &outside)
}

fn accepted(text: &str) -> Config {
    read(text).0.unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Puts lines into [`MINIMAL`], each over the line that begins alike up to the `=`, or at the end of its section.
fn with(section: &str, lines: &str) -> String {
    let mut text: Vec<&str> = MINIMAL.trim().lines().collect();
    let start = text.iter().position(|line| *line == section).unwrap() + 1;
    for line in lines.lines() {
        let end = text[start..].iter().position(|line| line.starts_with('[')).map_or(text.len(), |n| start + n);
        let key = line.split('=').next().unwrap();
        match text[start..end].iter().position(|old| old.split('=').next() == Some(key)) {
            Some(old) if line.contains('=') => text[start + old] = line,
            _ => text.insert(end, line),
        }
    }
    text.join("\n")
}

/// Every problem as `line:column key: message`.
fn complaints(text: &str) -> Vec<String> {
    let problems = read(text).0.err().unwrap_or_default();
    let line = |problem: Problem| match problem.at {
        Some(at) => format!("{}:{} {}: {}", at.line, at.column, problem.key, problem.message),
        None => format!("- {}: {}", problem.key, problem.message),
    };
    problems.into_iter().map(line).collect()
}

#[test]
fn a_minimal_file_gets_the_documented_defaults() {
    let config = accepted(MINIMAL);
    assert_eq!(config.registry.url, "http://localhost:8081");
    assert_eq!(config.kafka.security_protocol, SecurityProtocol::Plaintext);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:9400");
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(config.clickhouse.inserts_in_flight, 2);
    assert_eq!(config.clickhouse.password.as_ref().unwrap().expose(), "hunter2");
    let topic = &config.topics[0];
    assert_eq!((topic.id_column.as_str(), topic.start), ("event_id", StartOffset::Earliest));
    assert_eq!(topic.spec.dedup.window, Duration::from_secs(86_400));
    assert_eq!(topic.spec.batch.max_rows, 200_000);
    assert_eq!(topic.limits, DecodeLimits::default());
    let limit = ShareLimit { max_share: Share::new(0.5).unwrap(), window: Duration::from_secs(60), min_events: 1_000 };
    assert_eq!((topic.dead_letter_limit, &topic.dead_letter_table), (limit, &None));
    assert!(config.warnings.is_empty());
}

#[test]
fn the_printed_default_is_valid_and_maps_its_columns_in_order() {
    let config = accepted(DEFAULT);
    let spec = &config.topics[0].spec;
    assert_eq!(spec.columns.len(), 19);
    assert_eq!(spec.columns[0].column, "event_id");
    assert_eq!(spec.columns[11].column, "items.sku");
    let Source::Lookup { lookup, field } = &spec.columns[14].source else { panic!("{:?}", spec.columns[14]) };
    assert_eq!((spec.lookups[*lookup].name.as_str(), field.to_string().as_str()), ("product", "category"));
    assert_eq!(config.clickhouse.password.as_ref().unwrap().expose(), "content of /run/secrets/clickhouse");
}

/// The section of the second topic that is shipped.
const PAYMENTS: &str = include_str!("../../assets/payments.toml");

#[test]
fn the_shipped_second_topic_fits_behind_the_default_and_fills_its_table() {
    let config = accepted(&format!("{DEFAULT}\n{PAYMENTS}"));
    let payments = &config.topics[1];
    assert_eq!((payments.id_column.as_str(), payments.spec.lookups.len()), ("payment_id", 1));
    let ddl = millrace_schemas::CLICKHOUSE_DDL.iter().find(|(name, _)| name.ends_with("_payments")).unwrap().1;
    let columns = ddl.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(' ')).map(|(column, _)| column);
    let columns: Vec<&str> = columns.filter(|column| !column.starts_with('_') && *column != "INDEX").collect();
    let mapped: Vec<&str> = payments.spec.columns.iter().map(|column| column.column.as_str()).collect();
    assert_eq!(mapped, columns);
}

/// The default with every line switched on that begins with `#` and a key or a section.
fn default_with_all_keys() -> String {
    let on = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[' || c == '"') => rest,
        _ => line,
    };
    let text: Vec<&str> = DEFAULT.lines().map(on).collect();
    text.join("\n")
}

#[test]
fn the_printed_default_with_every_key_switched_on_is_valid() {
    let text = default_with_all_keys()
        .replacen("security_protocol = \"plaintext\"", "security_protocol = \"sasl_ssl\"", 1)
        .replacen("miss = \"null\"", "miss = \"wait\"", 1)
        .replacen("headers_file = \"/run/secrets/traces\"", "headers = \"name: value\"", 1);
    let config = accepted(&text);
    assert_eq!(config.topics[0].spec.lookups[0].miss, MissPolicy::Wait { timeout: Duration::from_secs(30) });
    let mut shown_defaults = accepted(DEFAULT);
    shown_defaults.topics[0].reader_schema = config.topics[0].reader_schema.clone();
    shown_defaults.topics[0].dead_letter_table = config.topics[0].dead_letter_table.clone();
    shown_defaults.topics[0].spec.route = config.topics[0].spec.route.clone();
    shown_defaults.topics[0].spec.lookups[0].miss = config.topics[0].spec.lookups[0].miss;
    assert_eq!(shown_defaults.topics, config.topics, "a commented key shows another value than its default");
    assert_eq!(shown_defaults.http, config.http);
    assert_eq!((shown_defaults.retry, config.retry), (Retry::default(), Retry::default()));
    assert_eq!(shown_defaults.log, config.log);
    assert_eq!(shown_defaults.shutdown, config.shutdown);
    let clickhouse = super::ClickHouse { tls: super::TlsFiles::default(), ..config.clickhouse };
    assert_eq!(shown_defaults.clickhouse, clickhouse);
    assert_eq!(shown_defaults.kafka.queue_max_bytes, config.kafka.queue_max_bytes);
    assert_eq!(shown_defaults.kafka.group_id, config.kafka.group_id);
}

#[test]
fn the_printed_default_mentions_every_key_there_is() {
    let (_, known) = read(&default_with_all_keys());
    assert!(known.len() > 50, "{known:?}");
    let words: BTreeSet<&str> = DEFAULT.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    for key in &known {
        let name = key.rsplit('.').next().unwrap();
        assert!(words.contains(name), "{key} is not mentioned in assets/millrace.toml");
    }
}

#[test]
fn each_mistake_is_told_with_its_place_and_what_to_do() {
    let cases = [
        (
            "unknown key",
            with("[clickhouse]", "pasword_file = \"x\""),
            "10:1 clickhouse.pasword_file: unknown key; did you mean `password_file`?",
        ),
        ("unknown section", with("[kafka]", "[kafak]"), "3:2 kafak: unknown key; did you mean `kafka`?"),
        (
            "nothing near",
            with("[registry]", "colour = 1"),
            "5:1 registry.colour: unknown key; known here: ca_file, certificate_file, key_file, key_password, key_password_env, key_password_file, password, password_env, password_file, request_timeout, token, token_env, token_file, url, username",
        ),
        (
            "wrong type",
            with("[kafka]", "group_id = 7"),
            "3:12 kafka.group_id: found integer 7, expected a text that is not empty",
        ),
        (
            "not one of",
            with("[kafka]", "security_protocol = \"sasl_sll\""),
            "3:21 kafka.security_protocol: found \"sasl_sll\", expected one of \"plaintext\", \"ssl\", \"sasl_plaintext\", \"sasl_ssl\"; did you mean `sasl_ssl`?",
        ),
        (
            "out of range",
            with("[[topics]]", "batch.max_rows = 5_000_000"),
            "15:18 topics[0].batch.max_rows: found integer 5000000, expected a whole number from 1 to 1000000",
        ),
        (
            "too deep",
            with("[[topics]]", "limits.max_depth = 500"),
            "15:20 topics[0].limits.max_depth: found integer 500, expected a whole number from 1 to 128",
        ),
        (
            "size without unit",
            with("[[topics]]", "batch.max_bytes = \"64MB\""),
            "15:19 topics[0].batch.max_bytes: found \"64MB\", expected a size from \"1KiB\" to \"240MiB\" in B, KiB, MiB or GiB",
        ),
        (
            "share",
            with("[[topics]]", "dead_letters.max_share = 50"),
            "15:26 topics[0].dead_letters.max_share: found integer 50, expected a share from 0.0 to 1.0",
        ),
        (
            "dead letters among rows",
            with("[[topics]]", "dead_letters.table = \"orders\""),
            "15:22 topics[0].dead_letters.table: table \"orders\" is already written by topic \"orders\"; expected a table of its own, for ids are told apart by table",
        ),
        (
            "duration",
            with("[[topics]]", "dedup.window = \"24 hours\""),
            "15:16 topics[0].dedup.window: found \"24 hours\", expected a duration from \"1s\" to \"90d\" in ms, s, m, h or d",
        ),
        (
            "address",
            with("[kafka]", "bootstrap_servers = \"http://localhost:9092\""),
            "2:21 kafka.bootstrap_servers: found \"http://localhost:9092\", expected host:port, several joined by commas, as in \"kafka-1:9092,kafka-2:9092\"",
        ),
        (
            "secret in URL",
            with("[clickhouse]", "url = \"http://millrace:hunter2@localhost:8123\""),
            "6:7 clickhouse.url: holds a user or password; URLs end up in logs: use the keys for user and password beside it",
        ),
        (
            "no URL",
            with("[clickhouse]", "url = \"localhost:8123\""),
            "6:7 clickhouse.url: found \"localhost:8123\", expected a URL such as \"http://localhost:8123\"",
        ),
        (
            "two secrets",
            with("[clickhouse]", "password_env = \"SET\""),
            "5:1 clickhouse.password: given more than once, as password and password_env; keep one of them",
        ),
        (
            "secret of a wrong type",
            with("[clickhouse]", "password = 271828"),
            "9:12 clickhouse.password: expected a text in quotes",
        ),
        (
            "variable not set",
            with("[registry]", "username = \"u\"\npassword_env = \"UNSET\""),
            "6:16 registry.password_env: the environment variable UNSET is not set (or not UTF-8)",
        ),
        (
            "file not there",
            with("[registry]", "ca_file = \"missing\""),
            "5:11 registry.ca_file: the file /conf/missing cannot be read: entity not found",
        ),
        (
            "owned property",
            with("[kafka]", "properties.\"enable.auto.commit\" = true"),
            "3:12 kafka.properties.\"enable.auto.commit\": may not be set here: offsets are committed only after the rows are in ClickHouse, which is what makes delivery exact",
        ),
        (
            "reserved column",
            with("[topics.columns]", "_offset = \"data.offset\""),
            "17:1 topics[0].columns._offset: may not be mapped: the Kafka offset is written here by Millrace itself",
        ),
        (
            "empty segment",
            with("[topics.columns]", "total = \"data..total\""),
            "17:9 topics[0].columns.total: field path \"data..total\" has an empty segment; expected names joined by dots, as in `data.customer_id`",
        ),
        (
            "lookup without lookups",
            with("[topics.columns]", "segment = \"customer:segment\""),
            "17:11 topics[0].columns.segment: found \"customer:segment\": no lookup is named \"customer\"; this topic has no [[topics.lookups]]",
        ),
        (
            "id not mapped",
            with("[[topics]]", "id = \"uuid\""),
            "14:6 topics[0].id: field \"uuid\" goes to no column of [topics.columns]; expected one, for duplicates are known by reading ids back from the table",
        ),
        (
            "SQL in a name",
            with("[[topics]]", "table = \"orders; DROP TABLE orders\""),
            "12:9 topics[0].table: found \"orders; DROP TABLE orders\", expected a plain name of letters, digits and _ that does not start with a digit",
        ),
        (
            "TLS that is not used",
            with("[kafka]", "tls.ca_file = \"ca.pem\""),
            "3:1 kafka.tls.ca_file: not used unless kafka.security_protocol is \"ssl\" or \"sasl_ssl\"",
        ),
        (
            "SASL that is missing",
            with("[kafka]", "security_protocol = \"sasl_ssl\""),
            "1:1 kafka.sasl.username: missing: kafka.security_protocol asks for a section [kafka.sasl]",
        ),
        (
            "missing key",
            MINIMAL.trim().replace("dead_letter_topic = \"orders.dead\"\n", ""),
            "10:1 topics[0].dead_letter_topic: missing; expected something like `dead_letter_topic = \"orders.dead\"`",
        ),
        (
            "section as value",
            with("[kafka]", "tls = \"yes\""),
            "3:7 kafka.tls: found \"yes\", expected a section `[kafka.tls]`",
        ),
    ];
    let mut failures = String::new();
    for (case, text, expected) in cases {
        let said = complaints(&text);
        if said.first().map(String::as_str) != Some(expected) {
            failures.push_str(&format!("{case}: expected {expected:?}\nbut it said {said:#?}\nof {text}\n\n"));
        }
        assert!(!said.concat().contains("hunter2") && !said.concat().contains("271828"), "{case}: {said:?}");
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn broken_syntax_is_told_with_its_place_and_nothing_is_guessed_beyond() {
    let said = complaints("[kafka]\nbootstrap_servers = \"localhost:9092\ngroup_id = \"millrace\"\n");
    assert!(said[0].starts_with("2:") && said[0].contains("not valid TOML"), "{said:?}");
    assert!(said.iter().all(|line| line.contains("not valid TOML")), "{said:?}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = MINIMAL
        .replace("9092", "kafka")
        .replace("http://localhost:8081/", "ftp://localhost")
        .replace("event_id = \"event_id\"", "event_id = \"customer:id\"")
        .replace("database", "databse");
    let keys: Vec<String> = read(&text).0.unwrap_err().into_iter().map(|problem| problem.key).collect();
    assert_eq!(
        keys,
        [
            "kafka.bootstrap_servers",
            "registry.url",
            "clickhouse.database",
            "clickhouse.databse",
            "topics[0].columns.event_id"
        ]
    );
}

#[test]
fn two_topics_may_not_share_a_table_or_a_topic() {
    let topic = MINIMAL.split_once("[[topics]]").unwrap().1;
    let said = complaints(&format!("{MINIMAL}[[topics]]{topic}"));
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        said.iter().any(|line| line.contains("table \"orders\" is already written by topic \"orders\"")),
        "{said:#?}"
    );
}

#[test]
fn secrets_come_from_one_place_and_never_show() {
    let config = accepted(&MINIMAL.replace("password = \"hunter2\"", "password_env = \"SET\""));
    assert_eq!(config.clickhouse.password.as_ref().unwrap().expose(), "from the environment");
    let shown = format!("{:?}", accepted(MINIMAL));
    assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn client_properties_carry_sasl_and_tls_and_keep_the_check_of_host_names() {
    let text = with(
        "[kafka]",
        "security_protocol = \"sasl_ssl\"\nsasl = {mechanism = \"SCRAM-SHA-512\", username = \"u\", password = \"p\"}\ntls = {ca_file = \"ca.pem\"}\nproperties.\"client.id\" = \"m-1\"",
    );
    let properties = accepted(&text).kafka.client_properties();
    for expected in [
        ("bootstrap.servers", "localhost:9092"),
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "u"),
        ("sasl.password", "p"),
        ("ssl.endpoint.identification.algorithm", "https"),
        ("ssl.ca.location", "/conf/ca.pem"),
        ("client.id", "m-1"),
    ] {
        assert!(properties.iter().any(|(name, value)| (name.as_str(), value.as_str()) == expected), "{expected:?}");
    }
    let text = text.replace("ca.pem\"", "ca.pem\", verify_hostname = false");
    assert_eq!(accepted(&text).warnings.len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_one_error_that_says_what_to_do() {
    let directory = std::env::temp_dir();
    let error = Config::load(&directory).unwrap_err().to_string();
    assert!(error.ends_with("is a directory; name the file in it"), "{error}");

    let error = Config::load(Path::new("/nowhere/millrace.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/millrace.toml: no such file; make one with"), "{error}");

    let binary = directory.join(format!("millrace-not-text-{}", std::process::id()));
    std::fs::write(&binary, b"[kafka]\n\xff\xfe").unwrap();
    let error = Config::load(&binary).unwrap_err().to_string();
    std::fs::remove_file(&binary).unwrap();
    assert!(error.contains("not UTF-8 text from byte 8 on"), "{error}");
}
