//! Commands of the admin API on the real parts: what is paused stands still through a rebalance, a drain is an end like any
//! other, and what is answered is what the description says.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::{
    described::Description,
    small::{Running, Small},
};

const SOON: Duration = Duration::from_secs(20);

/// The admin API of a process.
pub(crate) struct Admin {
    port: u16,
    client: Client,
    description: Description,
}

impl Admin {
    /// Of a process that is to be; adds the section to its configuration.
    pub(crate) fn of(config: &mut String) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        config.push_str(&format!("\n[admin]\nlisten = \"127.0.0.1:{port}\"\nauth = \"none\"\n"));
        Self { port, client: Client::new(), description: Description::read() }
    }

    /// What is answered, which is as the description says.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = self.client.request(method.clone(), &url);
        let request = if let Some(body) = &body { request.json(body) } else { request };
        // Right after its start it may not listen yet.
        let deadline = Instant::now() + SOON;
        loop {
            match request.try_clone().unwrap().send().await {
                Ok(answer) => {
                    let (status, answer) = (answer.status().as_u16(), answer.json().await.unwrap());
                    self.description.admits(&method, path, status, &answer);
                    return (status, answer);
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        self.ask(Method::POST, path, None).await
    }

    /// The first topic's status.
    async fn topic(&self) -> Value {
        self.ask(Method::GET, "/v1/status", None).await.1["topics"][0].clone()
    }

    /// Waits for a status of the first topic.
    async fn until(&self, what: &str, running: &Running, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            let topic = self.topic().await;
            if is(&topic) {
                return topic;
            }
            assert!(Instant::now() < deadline, "{what}: {topic:#}\n{}", running.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The numbers of its partitions that are in a state.
fn in_state(topic: &Value, state: &str) -> usize {
    topic["partitions"].as_array().unwrap().iter().filter(|partition| partition["state"] == state).count()
}

#[tokio::test]
async fn a_topic_that_is_paused_stands_still_through_a_rebalance_and_then_reads_on() {
    let mut small = Small::new().await;
    small.grow(&small.topic, 2).await;
    let beside_config = small.world.config.clone();
    let admin = Admin::of(&mut small.world.config);
    let path = |command: &str| format!("/v1/topics/{}/{command}", small.topic);
    small.produce(0, 0..20).await;
    small.produce(1, 20..40).await;
    let mut running = small.run();
    small.until_rows(40, SOON, &running).await;
    let status =
        admin.until("its counts", &running, |topic| topic["rows"] == 40 && in_state(topic, "running") == 2).await;
    assert_eq!(
        (&status["state"], &status["events"], &status["table"]),
        (&json!("running"), &json!(40), &json!("orders"))
    );
    admin
        .until("its offsets", &running, |topic| {
            let told = ["epoch", "next_offset", "committed", "high_watermark", "lag_events"];
            let all = topic["partitions"].as_array().unwrap().clone();
            all.iter().all(|one| told.iter().all(|name| one[name].is_u64()) && one["lag_events"] == 0)
        })
        .await;
    assert!(status["freshness_seconds"]["p99"].is_f64() && status["owner"].is_string(), "{status:#}");

    let (code, answer) = admin.ask(Method::GET, "/v1/queries/freshness", None).await;
    let partitions: Vec<&Value> = answer["rows"].as_array().unwrap().iter().map(|row| &row[0]).collect();
    assert_eq!((code, partitions), (200, vec![&json!(0), &json!(1)]), "{answer:#}");

    // What is under way when the word comes lands; what comes after it does not.
    small.produce(0, 40..60).await;
    let (code, paused) = admin.post(&path("pause")).await;
    assert_eq!((code, &paused["state"]), (200, &json!("paused")), "{paused:#}");
    let rows = admin
        .until("all landed", &running, |topic| topic["inserts_in_flight"] == 0 && topic["rows"] == topic["events"])
        .await;
    let rows = rows["rows"].as_u64().unwrap();
    small.produce(1, 60..80).await;
    assert_eq!(running.get("/readyz").await, format!("topic {}: paused by command\n", small.topic));

    // Another process comes, takes a partition, and goes.
    let mut beside = small.run_beside(&beside_config);
    beside.until_logged("partition is read", SOON).await;
    admin.until("half of the partitions", &running, |topic| topic["partitions"].as_array().unwrap().len() == 1).await;
    assert!(beside.terminate().await.0.success(), "{}", beside.log());
    let both = admin.until("both partitions again", &running, |topic| in_state(topic, "paused") == 2).await;
    assert_eq!((&both["state"], both["rows"].as_u64()), (&json!("paused"), Some(rows)), "{both:#}\n{}", running.log());

    let (code, resumed) = admin.post(&path("resume")).await;
    assert_eq!((code, &resumed["state"]), (200, &json!("running")), "{resumed:#}");
    small.until_rows(80, SOON, &running).await;

    // A drain is an end like that by SIGTERM.
    let (code, _) = admin.post("/v1/drain").await;
    assert_eq!(code, 202);
    assert!(running.ended(SOON).await.success(), "{}", running.log());
    assert!(running.log().contains("drained and left the group"), "{}", running.log());
    for action in ["topic.pause", "topic.resume", "process.drain"] {
        let told =
            |line: &&str| line.contains("millrace::audit") && line.contains(action) && line.contains("anonymous");
        assert_eq!(running.log().lines().filter(told).count(), 1, "{action} in {}", running.log());
    }
    small.world.clean_up().await;
}

#[tokio::test]
async fn dead_letters_are_replayed_and_the_log_level_set_by_command() {
    let mut small = Small::new().await;
    let admin = Admin::of(&mut small.world.config);
    let replay = format!("/v1/topics/{}/dead-letters/replay", small.topic);
    let mut cut = small.event(1);
    cut.truncate(cut.len() - 1);
    small.produce(0, 10..20).await;
    small.produce_to(&small.topic, 0, &[cut]).await;
    let mut running = small.run();
    small.until_rows(10, SOON, &running).await;
    let topic = admin.until("a dead letter", &running, |topic| topic["dead_letters"] == json!({"truncated": 1})).await;
    assert_eq!(topic["events"], 11);

    assert_eq!(admin.ask(Method::GET, &replay, None).await.0, 404);
    assert_eq!(admin.ask(Method::DELETE, &replay, None).await.0, 404);
    let wanted = json!({"reasons": ["truncated"], "pause": "0s"});
    let (code, begun) = admin.ask(Method::POST, &replay, Some(wanted.clone())).await;
    assert_eq!((code, &begun["state"], &begun["wanted"]["reasons"]), (202, &json!("running"), &json!(["truncated"])));
    let (code, problem) = admin.ask(Method::POST, &replay, Some(wanted)).await;
    assert_eq!((code, &problem["type"]), (409, &json!("urn:millrace:problem:replay_running")));
    let deadline = Instant::now() + SOON;
    let ended = loop {
        let (_, status) = admin.ask(Method::GET, &replay, None).await;
        if status["state"] != "running" {
            break status;
        }
        assert!(Instant::now() < deadline, "{status:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((&ended["state"], &ended["report"]["unreadable"]), (&json!("finished"), &json!(1)), "{ended:#}");

    // One that waits for its pace is stopped half-way.
    let dead = vec![vec![7_u8]; 40];
    small.produce_to(&small.topic, 0, &dead).await;
    admin
        .until("more dead letters", &running, |topic| {
            topic["dead_letters"]["truncated"].as_u64().unwrap_or(0)
                + topic["dead_letters"]["bad_magic"].as_u64().unwrap_or(0)
                >= 41
        })
        .await;
    let (code, _) = admin.ask(Method::POST, &replay, Some(json!({"rate": 1}))).await;
    assert_eq!(code, 202);
    let (code, stopped) = admin.ask(Method::DELETE, &replay, None).await;
    assert!(code == 200 && ["stopped", "stopping"].contains(&stopped["state"].as_str().unwrap()), "{stopped:#}");

    let (_, level) = admin.ask(Method::GET, "/v1/log-level", None).await;
    assert_eq!(level, json!({"level": "info"}));
    let (code, level) = admin.ask(Method::PUT, "/v1/log-level", Some(json!({"level": "debug"}))).await;
    assert_eq!((code, level), (200, json!({"level": "debug", "before": "info"})));
    small.produce(0, 20..21).await;
    running.until_logged("batch is in the table", SOON).await;
    assert!(!running.log().to_lowercase().contains("x-clickhouse-key"), "libraries stay at warnings");
    assert!(running.terminate().await.0.success());
    small.world.clean_up().await;
}
