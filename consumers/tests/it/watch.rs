//! `millrace status` and `millrace top` against a `millrace run` with its admin API.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::small::Small;

#[tokio::test(flavor = "multi_thread")]
async fn status_and_top_tell_how_a_running_process_is() {
    let mut small = Small::new().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    small.set("#[admin]", "[admin]");
    small.set("#listen = \"127.0.0.1:9465\"", &format!("listen = \"127.0.0.1:{port}\""));
    small.set("#auth = \"jwt\"", "auth = \"none\"");
    let url = format!("http://127.0.0.1:{port}");
    let status = |arguments: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_millrace")).args(["status", "--url", &url]).args(arguments).output().unwrap()
    };
    assert_eq!(status(&[]).status.code(), Some(1), "nobody is there yet");

    let mut running = small.run();
    small.produce(0, 0..1000).await;
    small.until_rows(1000, Duration::from_secs(20), &running).await;
    // What is shown of a topic is told once a second.
    let told = loop {
        let asked = status(&["--json"]);
        let told: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        if told["topics"][0]["partitions"][0]["committed"] == 1000 {
            assert_eq!(asked.status.code(), Some(0), "{told}");
            break told;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((&told["ready"], &told["topics"][0]["rows"]), (&true.into(), &1000.into()), "{told}");
    let version = Command::new(env!("CARGO_BIN_EXE_millrace")).arg("--version").output().unwrap();
    let commit = told["commit"].as_str().unwrap();
    assert!(String::from_utf8(version.stdout).unwrap().contains(&commit[..7]), "{told}");

    let screen = top(&url);
    for words in ["running", "1,000", "partitions 1", "q quit"] {
        assert!(screen.contains(words), "no {words:?} in {screen:?}");
    }
    let cursor = (screen.rfind("\u{1b}[?25l"), screen.rfind("\u{1b}[?25h"));
    assert!(cursor.0 < cursor.1, "the cursor is back: {screen:?}");
    assert!(screen.trim_end().ends_with("\u{1b}[?1049l"), "the screen of before is back: {screen:?}");

    let label = told["topics"][0]["topic"].as_str().unwrap();
    let paused = reqwest::Client::new().post(format!("{url}/v1/topics/{label}/pause")).send().await.unwrap();
    assert!(paused.status().is_success(), "{}", paused.status());
    while status(&[]).status.code() == Some(0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let words = String::from_utf8(status(&[]).stdout).unwrap();
    assert!(words.contains("paused"), "{words}");
    assert!(running.terminate().await.0.success(), "{}", running.log());
    small.world.clean_up().await;
}

/// What `millrace top` writes to a terminal of 80 by 24 until somebody who has seen the partitions presses q.
fn top(url: &str) -> String {
    let command = format!("stty rows 24 cols 80; exec {} top --url {url}", env!("CARGO_BIN_EXE_millrace"));
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut output) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (mut screen, mut buffer, mut pressed) = (Vec::new(), [0; 4096], false);
    loop {
        let read = output.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        screen.extend_from_slice(&buffer[..read]);
        if !pressed && String::from_utf8_lossy(&screen).contains("partitions 1") {
            keys.write_all(b"q").unwrap();
            pressed = true;
        }
    }
    assert!(script.wait().unwrap().success(), "{}", String::from_utf8_lossy(&screen));
    String::from_utf8(screen).unwrap()
}
