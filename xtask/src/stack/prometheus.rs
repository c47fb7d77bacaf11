//! Prometheus, if this machine has it. `millrace` processes are scraped through `prometheus/targets.json` of the data
//! folder, which the commands that start one write.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::http;
use super::layout::{DataDir, clone_root, write_atomically};
use super::part::{Launch, Part};
use super::ports::Ports;

/// Seconds between two looks at ClickHouse, whose answer is half a megabyte.
const SELDOM: u64 = 15;
/// The same while somebody looks.
const OFTEN: u64 = 2;

/// # Errors
/// If the configuration cannot be written.
pub(crate) fn prepare(dir: &DataDir, ports: &Ports, program: &Path) -> Result<Launch> {
    let targets = program_targets(dir);
    if !targets.exists() {
        write_atomically(&targets, b"[]\n", 0o644)?;
    }
    let rules = clone_root()?.join("k8s/observability/rules/millrace.yml");
    let clickhouse = clickhouse_targets(dir);
    write_json(&clickhouse, &clickhouse_every(SELDOM, &format!("127.0.0.1:{}", ports.clickhouse_http)))?;
    let config = config(&targets, &clickhouse, &rules);
    let path = dir.config("prometheus.yml");
    write_atomically(&path, config.as_bytes(), 0o644)?;
    let args = vec![
        format!("--config.file={}", path.display()).into(),
        format!("--storage.tsdb.path={}", dir.data(Part::Prometheus).join("data").display()).into(),
        "--storage.tsdb.retention.time=3d".into(),
        format!("--web.listen-address=127.0.0.1:{}", ports.prometheus).into(),
        "--log.level=warn".into(),
    ];
    Ok(Launch {
        part: Part::Prometheus,
        program: program.to_path_buf(),
        args,
        env: Default::default(),
        config: vec![config],
    })
}

fn config(targets: &Path, clickhouse: &Path, rules: &Path) -> String {
    include_str!("../../assets/prometheus.yml")
        .replace("@RULES@", &rules.display().to_string())
        .replace("@TARGETS@", &targets.display().to_string())
        .replace("@CLICKHOUSE@", &clickhouse.display().to_string())
}

/// Lets the Prometheus of the instance in this folder scrape these programs (the name of the job, and the URL) every second, and
/// ClickHouse more often.
///
/// # Errors
/// If the files that it reads cannot be written.
pub(crate) fn scrape(root: &Path, clickhouse: &str, programs: &[(&str, String)]) -> Result<()> {
    let dir = DataDir::at(root.to_path_buf());
    let program = |(job, url): &(&str, String)| json!({ "targets": [bare(url)], "labels": { "job": job } });
    write_json(&program_targets(&dir), &programs.iter().map(program).collect())?;
    write_json(&clickhouse_targets(&dir), &clickhouse_every(OFTEN, bare(clickhouse)))
}

fn program_targets(dir: &DataDir) -> PathBuf {
    dir.data(Part::Prometheus).join("targets.json")
}

fn clickhouse_targets(dir: &DataDir) -> PathBuf {
    dir.data(Part::Prometheus).join("clickhouse.json")
}

fn clickhouse_every(seconds: u64, address: &str) -> Value {
    let often = format!("{seconds}s");
    json!([{ "targets": [address], "labels": { "__scrape_interval__": often, "__scrape_timeout__": often } }])
}

fn bare(url: &str) -> &str {
    url.trim_start_matches("http://")
}

fn write_json(path: &Path, content: &Value) -> Result<()> {
    write_atomically(path, format!("{content:#}\n").as_bytes(), 0o644)
}

/// # Errors
/// Until it is ready to answer queries.
pub(crate) fn probe(ports: &Ports) -> Result<()> {
    http::get(&format!("http://127.0.0.1:{}/-/ready", ports.prometheus)).map(drop)
}
