use std::io::Write;
use std::process::{Command, Output, Stdio};

use millrace_producers::PublisherConfig;

use crate::stack::{NOBODY, event, read_all, topic};

fn publish(config: &PublisherConfig, input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_millrace-publish"))
        .args(["--bootstrap-servers", &config.bootstrap_servers, "--registry", &config.registry.url])
        .args(["--topic", &config.topic, "--verbose"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn lines_are_published_and_a_bad_one_is_named_without_stopping_the_rest() {
    let config = topic(1, &[]).await;
    let good = || serde_json::to_string(&event()).unwrap();
    let bad = good().replace("\"web\"", "\"fax\"").replace("\"mobile\"", "\"fax\"");
    let output = publish(&config, &format!("{}\n\n{bad}\n{}\n", good(), good()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("line 3: not an order event: unknown variant `fax`, expected one of `web`"), "{errors}");
    assert!(errors.contains("2 published, 1 not"), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    assert_eq!(read_all(&config).len(), 2);
}

#[tokio::test]
async fn a_registry_that_is_down_ends_it_before_anything_is_read() {
    let mut config = topic(1, &[]).await;
    config.registry.url = format!("http://{NOBODY}");
    let output = publish(&config, "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("cannot be reached"), "{errors}");
}
