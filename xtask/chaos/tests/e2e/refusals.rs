//! What is wrong at the start is told once and clearly, and in time; what may mend itself is waited for.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use millrace_chaos::config::Config;
use millrace_chaos::proxy::Proxy;
use millrace_chaos::stack::program;
use millrace_chaos::world::{Load, World};

/// An address on which nothing listens.
const NOBODY: &str = "127.0.0.1:1";
const PATIENCE: Duration = Duration::from_secs(30);

/// `millrace run` ends by itself with this status and one line of error that holds all of `words`.
fn run_refuses(world: &World, config: &Config, status: i32, words: &[&str]) {
    let mut millrace = world.start(config);
    let (ended, took) = millrace.wait(Duration::from_secs(10));
    let errors = millrace.lines(&["error: "]);
    assert_eq!((ended.code(), errors.len()), (Some(status), 1), "{}", millrace.log());
    assert!(words.iter().all(|word| errors[0].contains(word)), "{words:?} in {}", errors[0]);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// `millrace check` finds one problem, whose line holds all of `words`, and ends in time.
fn check_finds(world: &World, config: &Config, words: &[&str]) {
    let begun = Instant::now();
    let output = world.command("check", &["--timeout", "3s"], config);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let problems: Vec<&str> = stdout.lines().filter(|line| line.starts_with('✗')).collect();
    assert_eq!((output.status.code(), problems.len()), (Some(1), 1), "{stdout}");
    assert!(words.iter().all(|word| problems[0].contains(word)), "{words:?} in {}", problems[0]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// `millrace run` keeps trying, says what it waits for at `/readyz` and in its log, and leaves when asked.
fn run_waits(world: &World, config: &Config, words: &[&str]) {
    let mut millrace = world.start(config);
    let says = |text: &str| words.iter().all(|word| text.contains(word));
    millrace.until(&format!("/readyz says {words:?}"), PATIENCE, |it| {
        it.readiness().is_some_and(|(status, text)| status == 503 && says(&text))
    });
    millrace.until("it has warned twice", PATIENCE, |it| it.lines(&["WARN"]).len() >= 2);
    millrace.signal(Signal::TERM);
    let (status, took) = millrace.wait(Duration::from_secs(40));
    assert!(status.success(), "after SIGTERM: {status}\n{}", millrace.log());
    assert!(took < Duration::from_secs(21), "SIGTERM took {took:?}");
    println!("{words:?}: left {took:?} after SIGTERM");
}

#[test]
fn parts_that_cannot_be_reached_are_waited_for() {
    let world = World::new("waits");
    let config = world.config();
    let nobody = format!("http://{NOBODY}");

    let registry = config.clone().with("[registry]", "url", &nobody);
    check_finds(&world, &registry, &["registry", NOBODY]);
    run_waits(&world, &registry, &["registry"]);

    let clickhouse = config.clone().with("[clickhouse]", "url", &nobody);
    check_finds(&world, &clickhouse, &["clickhouse", NOBODY]);
    run_waits(&world, &clickhouse, &["ClickHouse"]);

    let kafka = config.with("[kafka]", "bootstrap_servers", NOBODY);
    check_finds(&world, &kafka, &["kafka", NOBODY]);
    run_waits(&world, &kafka, &["topic"]);
}

#[test]
fn parts_that_come_later_are_enough() {
    let world = World::new("later");
    let stack = &world.stack;
    let (registry, clickhouse) = (Proxy::to(&stack.registry), Proxy::to(&stack.clickhouse));
    // Only the first connection goes through it: the broker names its own address to all that come.
    let kafka = Proxy::to(&format!("http://{}", stack.kafka));
    for part in [&registry, &clickhouse, &kafka] {
        part.set_open(false);
    }
    let config = world
        .config()
        .with("[kafka]", "bootstrap_servers", &kafka.address())
        .with("[registry]", "url", &registry.url(&stack.registry))
        .with("[clickhouse]", "url", &clickhouse.url(&stack.clickhouse));
    let mut millrace = world.start(&config);
    for (part, name) in [(&clickhouse, "ClickHouse"), (&registry, "registry"), (&kafka, "reference topics")] {
        millrace.until(&format!("it waits for {name}"), PATIENCE, |it| {
            it.readiness().is_some_and(|(status, text)| status == 503 && text.contains(name))
        });
        if part.address() == kafka.address() {
            // So long does the first question take to fail.
            millrace.until("it says so", PATIENCE, |it| !it.lines(&["WARN", "reference topic not ready"]).is_empty());
        }
        part.set_open(true);
    }
    millrace.until_ready();
    let mut generator = world.generate(Load { events: 5_000, rate: 0, duplicates: 0.05, poison: 0.01 });
    let manifest = generator.finish();
    world.until_committed(PATIENCE);
    millrace.terminate();
    world.assert_everything_landed_once(&generator, &manifest);
}

#[test]
fn what_cannot_mend_itself_ends_the_start() {
    let world = World::new("refuses");
    let (config, table, stack) = (world.config(), world.table(), &world.stack);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run_refuses(&world, &config.clone().with("[http]", "listen", &address), 1, &[&address, "http.listen"]);

    let password = config.clone().with_raw("[clickhouse]", "password_file", "\"\"\npassword = \"wrong\"");
    let text = password.text().replace("password_file = \"\"\n", "");
    let password = Config::new(text);
    check_finds(&world, &password, &["clickhouse", "refuses user", "password"]);
    run_refuses(&world, &password, 1, &["millrace"]);

    let missing = config.clone().with("[[topics]]", "table", "no_such_table");
    run_refuses(&world, &missing, 1, &["no_such_table", "millrace migrate --apply"]);

    stack.sql(&format!("ALTER TABLE {table} DROP COLUMN coupon"));
    check_finds(&world, &config, &["no column coupon"]);
    run_refuses(&world, &config, 1, &["no column coupon", "millrace migrate --apply"]);
}

#[test]
fn a_configuration_that_cannot_be_used_is_one_line_with_status_2() {
    let world = World::new("config");
    let unknown = world.config().with("[kafka]", "gruop_id", "a");
    let file = world.write(&unknown);
    let not_text = file.with_extension("bytes");
    fs::write(&not_text, [0xff, 0xfe, 0x00]).unwrap();
    let cases = [
        (file.to_str().unwrap(), "kafka.gruop_id: unknown key; did you mean `group_id`?"),
        ("/nowhere/millrace.toml", "no such file"),
        ("/", "is a directory"),
        (not_text.to_str().unwrap(), "not UTF-8"),
    ];
    for (file, words) in cases {
        for command in ["run", "check", "migrate"] {
            let output = Command::new(program("millrace")).args([command, "--config", file]).output().unwrap();
            let Output { status, stdout, stderr } = output;
            let stderr = String::from_utf8(stderr).unwrap();
            assert_eq!((status.code(), stdout.len(), stderr.lines().count()), (Some(2), 0, 1), "{stderr}");
            assert!(stderr.starts_with("error: ") && stderr.contains(words), "{words} in {stderr}");
        }
    }
}
