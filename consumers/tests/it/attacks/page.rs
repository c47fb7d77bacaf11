//! Attacks on the page and on what it asks for: it holds no data, and whoever asks a query gives values, never SQL.

use reqwest::Method;
use serde_json::Value;

use super::Table;
use crate::{
    described::Description,
    door::{Door, jwt},
    issuer::{Issuer, Key},
};

#[tokio::test]
async fn the_page_has_no_data_and_its_queries_take_values_only() {
    let key = Key::p256("ec-1");
    let issuer = Issuer::with(&[&key]).await;
    let door = Door::open("request_timeout = \"60s\"", &jwt(&issuer)).await;
    door.until_logged("the issuer's keys are known").await;
    let (viewer, analyst) = (issuer.claims(&["viewer"]), issuer.claims(&["analyst"]));
    let get = |path: &str| door.request(Method::GET, path).bearer_auth(key.sign(&key.header(), &analyst));
    let mut table = Table::default();

    let page = door.request(Method::GET, "/").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let strict = policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains('*');
    let open = page.status() == 200 && !page.text().await.unwrap().contains("\"orders\"");
    table.held("page without a token", "200, nothing in it", strict && open);
    table
        .refused(
            "file that is none of the page",
            door.request(Method::GET, "/assets/..%2Fopenapi.json"),
            404,
            "no_such_path",
        )
        .await;
    let status_only = door.request(Method::GET, "/v1/queries").bearer_auth(key.sign(&key.header(), &viewer));
    table.refused("queries without queries:read", status_only, 403, "forbidden").await;
    table.refused("status without status:read", get("/v1/status"), 403, "forbidden").await;

    let revenue = |values: &str| get(&format!("/v1/queries/revenue_per_minute?{values}"));
    table.refused("SQL as a number", revenue("param_minutes=1%29+OR+1%3D1"), 400, "parameter_invalid").await;
    table.refused("SQL of one's own", revenue("query=SELECT+1"), 400, "parameter_invalid").await;
    table.refused("setting of ClickHouse", revenue("readonly=0"), 400, "parameter_invalid").await;
    table.refused("setting as a parameter", revenue("param_readonly=0"), 400, "parameter_invalid").await;
    table.refused("parameter twice", revenue("param_minutes=1&param_minutes=2"), 400, "parameter_invalid").await;
    table
        .refused("oversized value", revenue(&format!("param_country={}", "x".repeat(2000))), 400, "parameter_invalid")
        .await;
    table.refused("SQL as a name", get("/v1/queries/funnel%3B%20DROP%20TABLE%20orders"), 404, "no_such_query").await;
    table.refused("path as a name", get("/v1/queries/..%2F..%2Fetc%2Fpasswd"), 404, "no_such_query").await;
    // What is right goes on to ClickHouse, which is away.
    table.refused("query while ClickHouse is away", revenue("param_minutes=5"), 503, "clickhouse_unavailable").await;
    table.done();

    let described = Description::read();
    let list: Value = get("/v1/queries").send().await.unwrap().json().await.unwrap();
    described.admits(&Method::GET, "/v1/queries", 200, &list);
    assert_eq!(list["queries"].as_array().unwrap().len(), millrace_schemas::QUERIES.len());
}
