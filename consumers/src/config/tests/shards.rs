//! `[[clickhouse.shards]]` and what is said of it.

use super::{MINIMAL, accepted, complaints};

fn with(shards: &str) -> String {
    MINIMAL.replace("url = \"http://localhost:8123\"\n", "").replace("[[topics]]", &format!("{shards}\n[[topics]]"))
}

#[test]
fn one_server_is_one_shard() {
    let clickhouse = accepted(MINIMAL).clickhouse;
    assert_eq!((clickhouse.shard_count(), clickhouse.is_cluster(), clickhouse.shard_of(7)), (1, false, 0));
    assert_eq!(clickhouse.replicas(0), ["http://localhost:8123"]);
    assert!(clickhouse.replicas(1).is_empty());
    assert_eq!(clickhouse.servers(), [(0, clickhouse.clone())]);
}

#[test]
fn a_cluster_is_its_shards_in_their_order_and_partitions_go_round() {
    let clickhouse = accepted(&with(
        "[[clickhouse.shards]]\nreplicas = [\"http://a:8123/\", \"http://b:8123\"]\n[[clickhouse.shards]]\nreplicas = [\"http://c:8123\"]",
    ))
    .clickhouse;
    assert_eq!((clickhouse.shard_count(), clickhouse.is_cluster()), (2, true));
    assert_eq!([0, 1, 2, 5].map(|partition| clickhouse.shard_of(partition)), [0, 1, 0, 1]);
    let servers: Vec<(usize, String)> =
        clickhouse.servers().into_iter().map(|(shard, settings)| (shard, settings.url)).collect();
    let expected = [(0, "http://a:8123"), (0, "http://b:8123"), (1, "http://c:8123")];
    assert_eq!(servers, expected.map(|(shard, url)| (shard, url.to_owned())));
    assert_eq!(clickhouse.url, "http://a:8123");
}

#[test]
fn the_cluster_through_which_shards_are_read_is_named_beside_them() {
    let text = with("[[clickhouse.shards]]\nreplicas = [\"http://a:8123\"]");
    assert_eq!(accepted(&text).clickhouse.cluster, None);
    let text = text.replace("database =", "cluster = \"both\"\ndatabase =");
    assert_eq!(accepted(&text).clickhouse.cluster.as_deref(), Some("both"));
}

#[test]
fn one_shard_of_several_replicas_is_a_cluster_too() {
    let text = with("[[clickhouse.shards]]\nreplicas = [\"http://a:8123\", \"http://b:8123\"]");
    assert_eq!((accepted(&text).clickhouse.shard_count(), accepted(&text).clickhouse.is_cluster()), (1, true));
}

#[test]
fn mistakes_in_shards_are_told_with_what_to_do() {
    let cases = [
        (
            with("[[clickhouse.shards]]\nreplicas = []"),
            "clickhouse.shards[0].replicas: found a value of type array, expected a list in brackets that is not empty",
        ),
        (
            with("[[clickhouse.shards]]"),
            "clickhouse.shards[0].replicas: missing; expected something like `replicas = [\"http://clickhouse-0-0:8123\"]`",
        ),
        (
            with(
                "[[clickhouse.shards]]\nreplicas = [\"http://a:1\"]\n[[clickhouse.shards]]\nreplicas = [\"http://A:1/\"]",
            ),
            "clickhouse.shards[1].replicas: http://A:1 is named already, in shards[0]; expected each server once",
        ),
        (
            with("[[clickhouse.shards]]\nreplicas = [\"a:8123\"]"),
            "clickhouse.shards[0].replicas: found \"a:8123\", expected a URL such as \"http://clickhouse-0-0:8123\"",
        ),
        (
            with("[[clickhouse.shards]]\nreplicas = [\"http://u:hunter2@a:8123\"]"),
            "clickhouse.shards[0].replicas: holds a user or password; URLs end up in logs: use the keys for user and password beside it",
        ),
        (
            with("[[clickhouse.shards]]\nreplica = [\"http://a:8123\"]\nreplicas = [\"http://a:8123\"]"),
            "clickhouse.shards[0].replica: unknown key; did you mean `replicas`?",
        ),
        (
            MINIMAL.replace("[[topics]]", "[[clickhouse.shards]]\nreplicas = [\"http://a:8123\"]\n[[topics]]"),
            "clickhouse.url: not used with [[clickhouse.shards]]: keep `url` for one server, or the shards for a cluster",
        ),
        (
            MINIMAL.replace("url = \"http://localhost:8123\"", "shards = \"a\""),
            "clickhouse.shards: found \"a\", expected sections headed `[[clickhouse.shards]]`, with double brackets",
        ),
        (
            MINIMAL.replace("url = \"http://localhost:8123\"", "shards = []"),
            "clickhouse.shards: has no shard that can be read; expected [[clickhouse.shards]] with `replicas`",
        ),
    ];
    for (text, expected) in cases {
        let said = complaints(&text);
        assert!(
            said.iter().any(|line| line.ends_with(expected)),
            "expected {expected:?}, but it said {said:#?} of {text}"
        );
        assert!(!said.concat().contains("hunter2"), "{said:?}");
    }
}
