//! Two servers that know each other as a cluster of two shards: what reads both, compared with one server that has all rows.
//! And a table that another replica has.

use std::fs;

use millrace_schemas::QUERIES;
use serde_json::Value;

use crate::{
    second_clickhouse::{Second, free_port},
    world::{NOBODY, World},
};

/// Events of 300 orders in every step, of which those of one order lie on either shard; customers, minutes and products are
/// shared by both.
const ROWS: &str = "INSERT INTO {db}.orders (event_id, event_type, timestamp, order_id, customer_id, currency, total, channel, \
    shipping_country, customer_segment, items.sku, items.quantity, items.unit_price, items.category, items.brand, \
    _partition, _offset, _ingested_at) \
    SELECT toUUID(concat('00000000-0000-0000-0000-', leftPad(toString(number), 12, '0'))), \
    CAST(1 + number % 6, 'Enum8(\\'created\\' = 1, \\'paid\\' = 2, \\'shipped\\' = 3, \\'delivered\\' = 4, \\'cancelled\\' = 5, \\'refunded\\' = 6)'), \
    toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + toIntervalSecond(number), concat('order-', toString(intDiv(number, 6))), \
    concat('customer-', toString(number % 17)), if(number % 5 = 0, 'USD', 'EUR'), toDecimal64(number, 2) / 100, \
    ['web', 'mobile'][1 + number % 2], ['DE', 'FR', 'ES'][1 + number % 3], 'consumer', \
    [concat('sku-', toString(number % 23))], [1 + number % 4], [toDecimal64(number % 100, 2)], ['books'], ['b'], \
    number % 2, intDiv(number, 2), now64(3) - toIntervalSecond(30) \
    FROM numbers(1800) WHERE {where}";
const LETTERS: &str = "INSERT INTO {db}.orders_dead (source_topic, source_partition, source_offset, source_timestamp, reason, written_at) \
    SELECT 'orders', number % 2, intDiv(number, 2), '2026-01-01 00:00:00', 'truncated', now64(3) - toIntervalSecond(30) \
    FROM numbers(20) WHERE {where}";

struct Cluster {
    world: World,
    shards: [Second; 2],
}

impl Cluster {
    async fn start() -> Self {
        let mut world = World::new().await;
        world.config = world.config.replace("#table = \"orders_dead\"", "table = \"orders_dead\"");
        let ports = [free_port(), free_port()];
        let password = fs::read_to_string(&world.stack.admin.password_file).unwrap();
        let shard = |port: &String| {
            format!(
                "<shard><replica><host>127.0.0.1</host><port>{port}</port><user>{}</user><password>{}</password></replica></shard>",
                world.stack.admin.user,
                password.trim_end()
            )
        };
        let servers = format!(
            "<remote_servers replace=\"replace\"><both>{}{}</both><lone>{}</lone></remote_servers>\
             <macros><shard>0</shard><replica>{{name}}</replica></macros>",
            shard(&ports[0]),
            shard(&ports[1]),
            shard(&ports[0])
        );
        let start = async |at: usize| {
            let name = format!("shard-{at}");
            Second::start_as(&world, &name, &ports[at], &servers.replace("{name}", &name)).await
        };
        let shards = [start(0).await, start(1).await];
        Self { world, shards }
    }

    /// The configuration for these servers, by shard.
    fn config(&self, cluster: &str, shards: &[&[&str]]) -> String {
        let url = format!("\nurl = {:?}\n", self.world.stack.clickhouse);
        let config = self.world.config.replace(&url, &format!("\n{cluster}\n"));
        assert_ne!(config, self.world.config);
        let shards = shards.iter().map(|urls| format!("\n[[clickhouse.shards]]\nreplicas = {urls:?}\n"));
        config + &shards.collect::<String>()
    }

    async fn fill(&self, client: &clickhouse::Client, condition: &str) {
        for sql in [ROWS, LETTERS] {
            let sql = sql.replace("{db}", &self.world.database).replace("{where}", condition);
            client.query_raw(&sql).execute().await.unwrap();
        }
    }

    fn answer(&self, config: &str, query: &str) -> Value {
        let order = ["--param", "order_id=order-7"];
        let parameters: &[&str] = if query == "order_current" { &order } else { &[] };
        let ran = self.world.millrace("query", &[&[query, "--format", "json"], parameters].concat(), config);
        assert_eq!(ran.status, 0, "{query}: {}{}", ran.stdout, ran.stderr);
        let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
        // When rows were inserted is another time on each server.
        match query {
            "freshness" => answer["rows"].as_array().unwrap().iter().map(|row| row[3].clone()).collect(),
            "ingest_per_minute" => {
                answer["rows"].as_array().unwrap().iter().map(|row| row[1].as_u64().unwrap()).sum::<u64>().into()
            }
            "dead_letters_by_reason" => answer["rows"][0][2].clone(),
            _ => answer["rows"].clone(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_over_two_shards_answers_what_one_server_with_all_rows_answers_or_nothing() {
    let mut cluster = Cluster::start().await;
    let world = &cluster.world;
    let urls = cluster.shards.each_ref().map(|shard| shard.url.clone());
    let shards: [&[&str]; 2] = [&[&urls[0]], &[&urls[1]]];
    let migrated = |config: &str| {
        let ran = world.millrace("migrate", &["--apply"], config);
        assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
        ran.stdout
    };
    let unnamed = cluster.config("", &shards);
    for config in [&world.config, &unnamed] {
        migrated(config);
    }
    cluster.fill(&world.client, "1").await;
    cluster.fill(&cluster.shards[0].client, "number % 2 = 0").await;
    cluster.fill(&cluster.shards[1].client, "number % 2 = 1").await;

    // No cluster is named: nothing is told rather than the first shard's share.
    let ran = world.millrace("query", &["funnel"], &unnamed);
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("of some shards only") && ran.stderr.contains("clickhouse.cluster"), "{}", ran.stderr);
    let both = cluster.config("cluster = \"both\"", &shards);
    let ran = world.millrace("query", &["funnel"], &both);
    assert_eq!(ran.status, 1, "{}", ran.stdout);
    assert!(ran.stderr.contains("millrace migrate --apply"), "{}", ran.stderr);

    let made = migrated(&both);
    for name in ["orders_all", "orders_dead_all", "orders_steps_all"] {
        assert_eq!(made.matches(&format!("done: create table {name},")).count(), 2, "{name}: {made}");
    }
    assert_eq!(migrated(&both).matches("Nothing to do.").count(), 2);
    for (name, _) in QUERIES {
        let (alone, together) = (cluster.answer(&world.config, name), cluster.answer(&both, name));
        assert_eq!(alone, together, "{name}");
        assert!(alone.as_array().is_none_or(|rows| !rows.is_empty()), "{name}: {alone}");
    }
    // Of that order either shard has some steps.
    assert_eq!(cluster.answer(&both, "order_current")[0][8], 6);

    // A cluster of one of the shards is none for two, whatever its tables are.
    let lone = cluster.config("cluster = \"lone\"", &shards);
    let ran = world.millrace("query", &["funnel"], &lone);
    assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("orders_steps_all read another cluster than lone"), "{}", ran.stderr);
    let ran = world.millrace("migrate", &["--apply"], &lone);
    assert_eq!(ran.status, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("! cluster lone has 1 shards"), "{}", ran.stdout);
    let ran = world.millrace("query", &["funnel"], &lone);
    assert!(ran.status == 2 && ran.stderr.contains("cluster lone has 1 shards"), "{}", ran.stderr);

    // A column that comes later is one of the tables that read all shards, too.
    migrated(&both);
    for shard in &cluster.shards {
        let add = format!("ALTER TABLE {}.orders ADD COLUMN kind String DEFAULT 'k'", world.database);
        shard.client.query(&add).execute().await.unwrap();
    }
    assert_eq!(migrated(&both).matches("done: create table orders_all,").count(), 2);
    let kinds = format!("SELECT countIf(kind = 'k') FROM {}.orders_all", world.database);
    assert_eq!(cluster.shards[0].client.query(&kinds).fetch_one::<u64>().await.unwrap(), 1800);
    assert_eq!(migrated(&both).matches("Nothing to do.").count(), 2);

    // Nobody tells a part while a shard is away.
    cluster.shards[1].kill().await;
    let world = &cluster.world;
    let ran = world.millrace("query", &["funnel"], &both);
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be asked now"), "{}", ran.stderr);
    // Of one shard the replicas are asked in their order.
    let nobody = format!("http://{NOBODY}");
    let replicas = cluster.config("", &[&[&nobody, &urls[1], &urls[0]]]);
    assert_eq!(cluster.answer(&replicas, "ingest_per_minute"), 900);
    let ran = world.millrace("query", &["funnel"], &cluster.config("", &[&[&nobody, &urls[1]]]));
    assert!(ran.status == 1 && ran.stderr.contains(&nobody) && ran.stderr.contains(&urls[1]), "{}", ran.stderr);
    cluster.world.clean_up().await;
}

/// A replicated table without Keeper can be looked at, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_a_table_gets_it_as_another_one_has_it() {
    let cluster = Cluster::start().await;
    let world = &cluster.world;
    let urls = cluster.shards.each_ref().map(|shard| shard.url.as_str());
    let config = cluster.config("", &[&[urls[0], urls[1]]]);
    let replicated = ["--engine", "replicated"];

    // Neither has any table: the second one's is not planned as it is shipped, for the first one may have altered it by then.
    let plan = world.millrace("migrate", &replicated, &config);
    assert_eq!(plan.status, 0, "{}{}", plan.stdout, plan.stderr);
    assert_eq!(plan.stdout.matches("+ create table orders (22 columns)").count(), 1, "{}", plan.stdout);
    assert!(plan.stdout.contains(&format!("+ make table orders as {} has it by then", urls[0])), "{}", plan.stdout);
    let script = world.millrace("migrate", &["--engine", "replicated", "--plan"], &config).stdout;
    assert_eq!(script.matches("CREATE TABLE IF NOT EXISTS").count(), 7, "{script}");
    assert!(script.contains(&format!("-- Later: table orders is made as {} has it", urls[0])), "{script}");

    // The first one has a column of its own.
    let database = &world.database;
    for statement in [
        format!("CREATE DATABASE {database}"),
        format!(
            "ATTACH TABLE {database}.claims UUID '{}' (topic LowCardinality(String), partition Int32, epoch UInt64, owner String, \
             claimed_at DateTime64(3, 'UTC') DEFAULT now64(3), note String COMMENT 'it\\'s ours') \
             ENGINE = ReplicatedMergeTree('/clickhouse/tables/{{shard}}/{database}/claims', '{{replica}}') \
             ORDER BY (topic, partition, epoch, owner)",
            uuid::Uuid::new_v4()
        ),
    ] {
        cluster.shards[0].client.query_raw(&statement).execute().await.unwrap();
    }
    let script = world.millrace("migrate", &["--engine", "replicated", "--plan"], &config).stdout;
    let of_second = script.split("-- Plan for database").nth(2).unwrap();
    let (_, made) = of_second.split_once(&format!("-- create table claims as {} has it\n", urls[0])).unwrap();
    let statement = made.split(";\n").next().unwrap();
    assert!(statement.starts_with(&format!("CREATE TABLE IF NOT EXISTS {database}.claims (`topic`")), "{statement}");
    let engine = format!("ReplicatedMergeTree('/clickhouse/tables/{{shard}}/{database}/claims', '{{replica}}')");
    assert!(statement.contains("`note` String COMMENT 'it\\'s ours'") && statement.contains(&engine), "{statement}");
    assert!(!of_second.contains("ALTER TABLE"), "{of_second}");

    // Its statement is understood as it is, and the macro is the second server's own. There is no Keeper to keep the table.
    let attach = statement.replacen("CREATE TABLE IF NOT EXISTS", "ATTACH TABLE", 1);
    let attach = attach.replacen(".claims (", &format!(".claims UUID '{}' (", uuid::Uuid::new_v4()), 1);
    let second = &cluster.shards[1].client;
    second.query_raw(&format!("CREATE DATABASE {database}")).execute().await.unwrap();
    second.query_raw(&attach).execute().await.unwrap();
    let columns = "SELECT count() FROM system.columns WHERE database = ? AND table = 'claims'";
    assert_eq!(second.query(columns).bind(database).fetch_one::<u64>().await.unwrap(), 6);
    let refused =
        cluster.shards[1].client.query_raw(&statement.replace("claims", "other")).execute().await.unwrap_err();
    assert!(refused.to_string().contains("225") || refused.to_string().contains("ZooKeeper"), "{refused}");
    cluster.world.clean_up().await;
}
