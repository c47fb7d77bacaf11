//! What an operator sees of a running `millrace`: readiness, health, metrics, and an end when asked.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::world::World;

/// A running `millrace`, killed if the test fails before it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

async fn get(url: &str) -> Option<(u16, String)> {
    let answer = reqwest::get(url).await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

fn with_port(config: &str, port: u16) -> String {
    config.replace("#listen = \"127.0.0.1:9400\"", &format!("listen = \"127.0.0.1:{port}\""))
}

#[tokio::test]
async fn a_running_process_gets_ready_tells_its_metrics_and_ends_on_sigterm() {
    let world = World::migrated().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let file = world.write(&with_port(&world.config, port));
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let child = command.args(["run", "--config", &file, "--log-level", "error"]).stderr(Stdio::inherit()).spawn();
    let mut running = Running(child.unwrap());

    let begun = Instant::now();
    while get(&format!("{url}/readyz")).await.is_none_or(|(status, _)| status != 200) {
        assert!(begun.elapsed() < Duration::from_secs(60), "not ready in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(get(&format!("{url}/healthz")).await.unwrap().0, 200);
    let (_, metrics) = get(&format!("{url}/metrics")).await.unwrap();
    let topic = format!("{{topic=\"{}.orders\"}} 0", world.database);
    for line in [
        "# TYPE millrace_events_total counter",
        &format!("millrace_rows_inserted_total{topic}"),
        &format!("millrace_dedup_early_expirations_total{topic}"),
        "millrace_build_info{version=",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }

    Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap();
    assert!(running.0.wait().unwrap().success());
    world.clean_up().await;
}

#[tokio::test]
async fn a_taken_port_is_one_clear_error() {
    let world = World::migrated().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ran = world.millrace("run", &["--log-level", "error"], &with_port(&world.config, port));
    assert_eq!((ran.status, ran.stderr.lines().count()), (1, 1), "{}", ran.stderr);
    assert!(ran.stderr.starts_with(&format!("error: listen on 127.0.0.1:{port} (key http.listen)")), "{}", ran.stderr);
    world.clean_up().await;
}
