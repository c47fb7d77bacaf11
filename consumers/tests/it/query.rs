//! Named queries against a real ClickHouse: by command, and what they may do.

use std::{fs, path::Path, time::Duration};

use millrace_consumers::{
    config::Config,
    query::{AskError, Asker, Limits, parse},
};
use serde_json::{Value, json};

use crate::world::World;

const LIMITS: Limits = Limits { time: Duration::from_secs(30), rows: 1000, bytes: 1 << 20, threads: 1 };

/// The text of a query of ours.
fn text(parameters: &str, sql: &str) -> String {
    format!("-- What.\n{parameters}-- example\n-- a\n{sql}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_tables_csv_and_json_and_explains_what_it_cannot_do() {
    let world = World::migrated().await;
    for partition in 0..2 {
        world
            .sql(&format!(
                "INSERT INTO {}.orders (event_id, event_type, timestamp, _partition, _offset) \
                 SELECT generateUUIDv4(), 'paid', '2026-01-01 00:00:00', {partition}, number FROM numbers(7)",
                world.database
            ))
            .await;
    }
    let query = |arguments: &[&str]| world.millrace("query", arguments, &world.config);
    let table = query(&["freshness"]);
    assert!(
        table.stdout.starts_with("partition  newest_event             newest_row"),
        "{}{}",
        table.stdout,
        table.stderr
    );
    assert!(table.stdout.contains("\n        0  2026-01-01 00:00:00.000  2"), "{}", table.stdout);
    assert!(table.stdout.contains("\n(2 rows in "), "{}", table.stdout);
    let csv = query(&["freshness", "--format", "csv"]);
    assert!(csv.stdout.starts_with("partition,newest_event,newest_row"), "{}", csv.stdout);
    assert_eq!(csv.stdout.matches("\r\n").count(), 3, "{}", csv.stdout);
    let answer: Value = serde_json::from_str(&query(&["freshness", "--format", "json"]).stdout).unwrap();
    assert_eq!((&answer["columns"][0]["type"], &answer["rows"][1][0]), (&json!("Int32"), &json!(1)), "{answer}");

    let list = query(&["--list"]);
    assert_eq!(list.stdout.lines().count(), millrace_schemas::QUERIES.len());
    for (arguments, words) in [
        (&["freshnes"][..], "did you mean `freshness`?"),
        (&["funnel", "--param", "hour=1"], "did you mean `hours`?"),
        (&["funnel", "--param", "hours=many"], "hours is \"many\", expected a whole number"),
        (&["funnel", "--param", "hours"], "expected NAME=VALUE"),
    ] {
        let ran = query(arguments);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(words), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
    }
    let long = query(&["freshness", "--max-rows", "1"]);
    assert!(long.stderr.contains("the answer is too large") && long.stderr.lines().count() == 1, "{}", long.stderr);
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_only_reads_within_its_limits_and_a_value_is_never_sql() {
    let world = World::migrated().await;
    let path = world.write(&world.config);
    let mut settings = Config::load(Path::new(&path)).unwrap().clickhouse;
    let asker = |limits| Asker::new(&settings, limits).unwrap();

    let echo =
        parse("echo", &text("-- param a String: Any\n", "SELECT {a:String} AS a, length(a) AS n LIMIT 1")).unwrap();
    for value in ["'; DROP TABLE orders; --", "a\tb\nc\\n\\", "\\N", "', 1) FORMAT Null --", "ünï{a:String}", "%27", ""]
    {
        let answer = asker(LIMITS).ask(&echo, &[("a", value.to_owned())]).await.unwrap();
        assert_eq!(answer.rows, [vec![json!(value), json!(value.len())]], "{value:?}");
    }

    // What writes is refused by the server itself, whoever asks.
    let rows = parse("rows", &text("", "SELECT number FROM numbers(1001) LIMIT 2000")).unwrap();
    let endless = "SELECT sum(cityHash64(number)) FROM numbers(1000000000000) LIMIT 1";
    let slow = parse("slow", &text("", endless)).unwrap();
    let missing = parse("missing", &text("", "SELECT x FROM nowhere LIMIT 1")).unwrap();
    let number = parse("number", &text("-- param a Date: A day\n", "SELECT {a:Date} LIMIT 1")).unwrap();
    let mut writes = rows.clone();
    writes.sql = "INSERT INTO claims SELECT * FROM claims LIMIT 1".to_owned();
    let brief = Limits { time: Duration::from_millis(500), ..LIMITS };
    let short = Limits { bytes: 100, rows: 1_000_000, ..LIMITS };
    let refused = asker(LIMITS).ask(&writes, &[]).await;
    assert!(refused.as_ref().is_err_and(|error| matches!(error, AskError::Refused(_))), "{refused:?}");
    assert!(matches!(asker(LIMITS).ask(&rows, &[]).await, Err(AskError::Large(_))));
    assert!(matches!(asker(short).ask(&rows, &[]).await, Err(AskError::Large(_))));
    let late = asker(brief).ask(&slow, &[]).await;
    assert!(late.as_ref().is_err_and(|error| matches!(error, AskError::Slow(_))), "{late:?}");
    assert!(matches!(asker(LIMITS).ask(&missing, &[]).await, Err(AskError::Missing(_))));
    assert!(matches!(asker(LIMITS).ask(&number, &[("a", "soon".to_owned())]).await, Err(AskError::Value(_))));

    // One who is read-only already is asked as it may be.
    let analyst = &world.stack.analyst;
    settings.user = analyst.user.clone();
    settings.password =
        Some(millrace_consumers::config::Secret::new(fs::read_to_string(&analyst.password_file).unwrap()));
    settings.database = "system".to_owned();
    let answer = Asker::new(&settings, LIMITS).unwrap().ask(&echo, &[("a", "x".to_owned())]).await.unwrap();
    assert_eq!(answer.rows[0][0], "x");
    world.clean_up().await;
}
