//! `millrace check` on real parts that are sound, down, wrong or half made: each problem is told, once, in time.

use std::time::Duration;

use crate::{
    rollups::without_rollups,
    world::{NOBODY, World, millrace},
};

#[tokio::test]
async fn a_sound_set_up_has_no_problem() {
    let world = World::migrated().await;
    let ran = world.check(&world.config);
    assert_eq!((ran.status, ran.problems().len()), (0, 0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.ends_with("No problems.\n"), "{}", ran.stdout);

    let ran = world.millrace("check", &["--json"], &world.config);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["ok"], &report["problems"]), (&true.into(), &0.into()), "{report}");
    world.clean_up().await;
}

#[tokio::test]
async fn a_wrong_broker_address_is_one_problem_and_the_rest_is_still_looked_at() {
    let world = World::migrated().await;
    let ran = world.check(&world.config.replace(&world.stack.kafka, NOBODY));
    assert_eq!((ran.status, ran.problems().len()), (1, 1), "{}", ran.stdout);
    ran.tells("kafka", &[NOBODY, "within 3 s", "Connection refused", "kafka.bootstrap_servers"]);
    assert!(ran.stdout.contains("✓ registry") && ran.stdout.contains("✓ columns"), "{}", ran.stdout);
    assert!(ran.took < Duration::from_secs(15), "{:?}", ran.took);
    world.clean_up().await;
}

#[tokio::test]
async fn a_registry_that_is_down_is_one_problem() {
    let world = World::migrated().await;
    let ran = world.check(&world.config.replace(&world.stack.registry, &format!("http://{NOBODY}")));
    assert_eq!((ran.status, ran.problems().len()), (1, 1), "{}", ran.stdout);
    ran.tells("registry", &[NOBODY, "cannot be reached", "refused", "registry.url"]);
    assert!(ran.took < Duration::from_secs(15), "{:?}", ran.took);
    world.clean_up().await;
}

#[tokio::test]
async fn clickhouse_down_or_refusing_the_password_is_one_problem() {
    let world = World::migrated().await;
    let ran = world.check(&world.config.replace(&world.stack.clickhouse, &format!("http://{NOBODY}")));
    assert_eq!((ran.status, ran.problems().len()), (1, 1), "{}", ran.stdout);
    ran.tells("clickhouse", &[NOBODY, "cannot be reached", "refused", "clickhouse.url"]);

    let file = format!("password_file = \"{}\"", world.stack.admin.password_file.display());
    let ran = world.check(&world.config.replace(&file, "password = \"wrong-hunter2\""));
    assert_eq!((ran.status, ran.problems().len()), (1, 1), "{}", ran.stdout);
    ran.tells("clickhouse", &["refuses user", "password"]);
    assert!(!ran.stdout.contains("wrong-hunter2"), "{}", ran.stdout);

    let ran = world.check(&world.config.replace(&format!("\"{}\"", world.database), "\"no_such_database\""));
    ran.tells("clickhouse", &["database no_such_database does not exist", "millrace migrate --apply"]);
    world.clean_up().await;
}

#[tokio::test]
async fn every_drift_of_the_table_is_told_at_once() {
    let world = World::migrated().await;
    without_rollups(&world).await;
    for statement in [
        "ALTER TABLE {db}.orders DROP COLUMN coupon",
        "ALTER TABLE {db}.orders DROP COLUMN _offset",
        "ALTER TABLE {db}.orders MODIFY COLUMN total Decimal(10, 2)",
        "ALTER TABLE {db}.orders MODIFY COLUMN customer_segment LowCardinality(String) DEFAULT ''",
        "ALTER TABLE {db}.orders ADD COLUMN region String",
        "ALTER TABLE {db}.orders RESET SETTING non_replicated_deduplication_window",
        "ALTER TABLE {db}.orders MODIFY TTL toDateTime(timestamp) + INTERVAL 6 HOUR",
    ] {
        world.sql(statement).await;
    }
    let ran = world.check(&world.config);
    assert_eq!((ran.status, ran.problems().len()), (1, 7), "{}", ran.stdout);
    ran.tells("columns", &["no column coupon"]);
    ran.tells("columns", &["no column _offset", "millrace migrate --apply"]);
    ran.tells("columns", &["column total is of type Decimal(10, 2)", "expected Decimal(18, 2)"]);
    ran.tells("columns", &["column customer_segment", "customer:segment may be null", "expected Nullable"]);
    ran.tells("columns", &["column region gets no value"]);
    ran.tells("clickhouse", &["table orders lets rows go after 0.2 days", "dedup.window is 1.0 days"]);
    ran.tells("columns", &["retried insert would land twice", "non_replicated_deduplication_window"]);
    world.clean_up().await;
}

#[tokio::test]
async fn missing_grants_are_told_as_the_statements_that_give_them() {
    let world = World::migrated().await;
    let config = world
        .config
        .replace(
            &format!("user = \"{}\"", world.stack.admin.user),
            &format!("user = \"{}\"", world.stack.pipeline.user),
        )
        .replace(
            &*world.stack.admin.password_file.to_string_lossy(),
            &world.stack.pipeline.password_file.to_string_lossy(),
        );
    let ran = world.check(&config);
    assert_eq!(ran.status, 1, "{}", ran.stdout);
    for grant in ["SELECT ON {db}.orders", "INSERT ON {db}.orders", "SELECT ON {db}.claims", "INSERT ON {db}.claims"] {
        let grant = format!("`GRANT {} TO {}`", grant.replace("{db}", &world.database), world.stack.pipeline.user);
        ran.tells("clickhouse", &[&grant]);
    }
    assert!(!ran.stdout.contains("GRANT SELECT ON system.processes"), "{}", ran.stdout);
    world.clean_up().await;
}

#[tokio::test]
async fn topics_schemas_and_paths_that_are_not_there_are_told_at_once() {
    let world = World::migrated().await;
    let database = &world.database;
    let config = world
        .config
        .replace(&format!("{database}.dead"), &format!("{database}.deaf"))
        .replace(&format!("topic = \"{database}.products\""), &format!("topic = \"{database}.dead\""))
        .replace("\"data.total\"", "\"data.totl\"")
        .replace("\"customer:segment\"", "\"customer:sgment\"");
    let ran = world.check(&config);
    assert_eq!(ran.status, 1, "{}", ran.stdout);
    ran.tells("kafka", &[&format!("topic {database}.deaf"), "does not exist", "kafka-topics.sh --create"]);
    ran.tells("kafka", &[&format!("topic {database}.dead"), "cleanup.policy=delete", "compact"]);
    ran.tells("registry", &[&format!("subject {database}.dead-value has no schema")]);
    ran.tells("columns", &["columns.total = \"data.totl\"", "did you mean \"data.total\"?"]);
    ran.tells("columns", &["columns.customer_segment = \"sgment\"", "did you mean \"segment\"?"]);
    world.clean_up().await;
}

#[tokio::test]
async fn a_wrong_configuration_is_told_with_its_place_and_status_2() {
    let world = World::new().await;
    let config =
        world.config.replace("[kafka]\n", "[kafka]\ngruop_id = \"a\"\n").replace("id = \"event_id\"", "id = 7");
    for command in ["check", "run", "migrate"] {
        let ran = world.millrace(command, &[], &config);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{}", ran.stderr);
        assert!(
            lines[0].starts_with("error: ") && lines[0].contains("millrace.toml:11:1: kafka.gruop_id"),
            "{}",
            lines[0]
        );
        assert!(lines[0].ends_with("unknown key; did you mean `group_id`?"), "{}", lines[0]);
        assert!(lines[1].contains("topics[0].id: found integer 7"), "{}", lines[1]);
    }
    let ran = world.millrace("check", &["--offline"], &world.config.replace(&world.stack.kafka, NOBODY));
    assert_eq!(ran.status, 0, "{}", ran.stdout);
    world.clean_up().await;
}

#[test]
fn an_unreadable_configuration_is_one_line_with_status_2() {
    for (file, expected) in [("/nowhere/millrace.toml", "no such file"), ("/", "is a directory")] {
        for command in ["check", "run", "migrate"] {
            let ran = millrace(&[command, "--config", file]);
            assert_eq!((ran.status, ran.stderr.lines().count()), (2, 1), "{}", ran.stderr);
            assert!(ran.stderr.starts_with(&format!("error: {file}: {expected}")), "{}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn a_property_that_librdkafka_does_not_know_is_told_without_a_connection() {
    let world = World::new().await;
    let config = world.config.replace("[kafka.properties]", "[kafka.properties]\n\"linger.msec\" = \"5\"");
    let ran = world.millrace("check", &["--offline"], &config);
    assert_eq!(ran.status, 1, "{}", ran.stdout);
    ran.tells("config", &["kafka.properties.\"linger.msec\"", "No such configuration property"]);
    world.clean_up().await;
}
