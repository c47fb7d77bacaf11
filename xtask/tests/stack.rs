//! The stack for real: an instance of its own, brought up, killed without warning, and brought up again.
//!
//! Drives the built command as a person would, and links none of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

const PARTS: [&str; 3] = ["kafka", "registry", "clickhouse"];

/// An instance in a folder that no other run uses; gone at the end, however the test ends.
struct Instance {
    dir: PathBuf,
}

impl Instance {
    fn new() -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stack-{}", std::process::id()));
        Self { dir }
    }

    fn try_stack(&self, args: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("stack")
            .args(args)
            .arg("--dir")
            .arg(&self.dir)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    fn stack(&self, args: &[&str]) -> String {
        let (success, said) = self.try_stack(args);
        assert!(success, "stack {args:?}:\n{said}");
        said
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.dir.join(file)).unwrap()).unwrap()
    }

    fn address(&self, part: &str) -> String {
        self.json("stack.json")[part].as_str().unwrap().to_owned()
    }

    fn pid(&self, part: &str) -> Pid {
        let pid = &self.json(&format!("run/{part}.json"))["pid"];
        Pid::from_raw(i32::try_from(pid.as_i64().unwrap()).unwrap()).unwrap()
    }

    fn query(&self, login: &str, statement: &str) -> Result<String, String> {
        let login = &self.json("stack.json")[login];
        let password = fs::read_to_string(login["password_file"].as_str().unwrap()).unwrap();
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
        let mut response = agent
            .post(self.address("clickhouse"))
            .header("X-ClickHouse-User", login["user"].as_str().unwrap())
            .header("X-ClickHouse-Key", password)
            .send(statement)
            .map_err(|error| error.to_string())?;
        let body = response.body_mut().read_to_string().unwrap().trim_end().to_owned();
        if response.status() == 200 { Ok(body) } else { Err(body) }
    }

    /// Registers a schema and returns its id.
    fn register(&self, subject: &str, schema: &str) -> i64 {
        let url = format!("{}/subjects/{subject}/versions", self.address("registry"));
        let body = serde_json::json!({ "schema": schema }).to_string();
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        let request = agent.post(url).header("Content-Type", "application/vnd.schemaregistry.v1+json");
        let answer = request.send(body).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()["id"].as_i64().unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let (stopped, said) = self.try_stack(&["down", "--wipe"]);
        let _ = fs::remove_dir_all(&self.dir);
        assert!(stopped || thread::panicking(), "{said}");
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(30), "still not: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A zombie does not: whether and when the dead are reaped is not ours to say.
fn lives(pid: Pid) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p"]).arg(pid.as_raw_nonzero().to_string()).output().unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

/// One test, since each `up` costs seconds.
#[test]
fn a_stack_that_was_killed_comes_up_again_with_its_data() {
    let instance = Instance::new();
    instance.stack(&["up"]);
    instance.stack(&["status"]);
    let again = instance.stack(&["up"]);
    assert!(again.contains("was up already"), "{again}");

    instance.query("admin", "CREATE TABLE millrace.orders (a UInt32) ENGINE = MergeTree ORDER BY a").unwrap();
    instance.query("pipeline", "INSERT INTO millrace.orders SELECT number FROM numbers(1000)").unwrap();
    let id = instance.register("orders-value", "\"string\"");

    let pids = PARTS.map(|part| instance.pid(part));
    for pid in pids {
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
    wait_until("all killed", || !pids.into_iter().any(lives));
    let (complete, said) = instance.try_stack(&["status"]);
    assert!(!complete, "{said}");

    instance.stack(&["up"]);
    instance.stack(&["status", "--json"]);
    assert_eq!(instance.query("analyst", "SELECT count(), sum(a) FROM millrace.orders").unwrap(), "1000\t499500");
    assert_eq!(instance.register("orders-value", "\"string\""), id, "a schema keeps its id");
    assert_ne!(instance.register("other-value", "\"int\""), id, "a new schema does not get an id in use");

    each_user_may_do_what_it_needs_and_no_more(&instance);
    clickhouse_comes_back_by_itself(&instance);

    let pids = PARTS.map(|part| instance.pid(part));
    instance.stack(&["down"]);
    assert!(!pids.into_iter().any(lives));
    assert!(!instance.dir.join("stack.json").exists());
}

fn each_user_may_do_what_it_needs_and_no_more(instance: &Instance) {
    let refused = |login, statement| {
        let error = instance.query(login, statement).unwrap_err();
        assert!(error.starts_with("Code: 497."), "{login} on {statement}: {error}");
    };
    refused("pipeline", "CREATE TABLE millrace.other (a UInt32) ENGINE = MergeTree ORDER BY a");
    refused("pipeline", "DROP TABLE millrace.orders");
    refused("analyst", "INSERT INTO millrace.orders VALUES (1)");
    refused("analyst", "SELECT query FROM system.processes");
    let error = instance.query("analyst", "SELECT 1 SETTINGS max_execution_time = 0").unwrap_err();
    assert!(error.starts_with("Code: 452."), "{error}");

    // The pipeline finds and kills its own queries, and does not see those of others.
    let sleep = "SELECT sleepEachRow(1) FROM numbers(60) SETTINGS max_block_size = 1, \
                 function_sleep_max_microseconds_per_block = 100000000 FORMAT Null";
    let running = |login| {
        let seen = instance.query(
            login,
            "SELECT user FROM system.processes WHERE query LIKE 'SELECT sleepEachRow(1) FROM numbers(60)%'",
        );
        seen.unwrap()
    };
    thread::scope(|scope| {
        let own = scope.spawn(|| instance.query("pipeline", sleep).unwrap_err());
        let other = scope.spawn(|| instance.query("admin", sleep).unwrap_err());
        wait_until("both queries run", || running("admin").lines().count() == 2);
        assert_eq!(running("pipeline"), "millrace");
        instance.query("pipeline", "KILL QUERY WHERE query LIKE 'SELECT sleepEachRow%' ASYNC").unwrap();
        assert!(own.join().unwrap().starts_with("Code: 394."));
        assert_eq!(running("admin"), "admin", "it has killed no query but its own");
        instance
            .query("admin", "KILL QUERY WHERE query LIKE 'SELECT sleepEachRow(1) FROM numbers(60)%' ASYNC")
            .unwrap();
        assert!(other.join().unwrap().starts_with("Code: 394."));
    });
}

fn clickhouse_comes_back_by_itself(instance: &Instance) {
    let supervisor = instance.pid("clickhouse");
    let serving = child_of(supervisor).unwrap();
    rustix::process::kill_process(serving, Signal::KILL).unwrap();
    wait_until("another ClickHouse serves", || {
        child_of(supervisor).is_some_and(|child| child != serving) && instance.query("analyst", "SELECT 1").is_ok()
    });
    assert_eq!(instance.pid("clickhouse"), supervisor);

    let serving = child_of(supervisor).unwrap();
    rustix::process::kill_process(supervisor, Signal::KILL).unwrap();
    wait_until("the server has ended with its supervisor", || !lives(serving));
    instance.stack(&["up"]);
}

fn child_of(parent: Pid) -> Option<Pid> {
    let output = Command::new("ps").args(["-e", "-o", "pid=,ppid="]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let parent = parent.as_raw_nonzero().to_string();
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let pid = fields.next()?.parse().ok()?;
        (fields.next()? == parent).then(|| Pid::from_raw(pid))?
    })
}
