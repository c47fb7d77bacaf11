//! Prometheus, if this machine has it. `millrace` processes are scraped through `prometheus/targets.json` of the data
//! folder, which the commands that start one write.

use std::path::Path;

use anyhow::Result;

use super::http;
use super::layout::{DataDir, write_atomically};
use super::part::{Launch, Part};
use super::ports::Ports;

/// # Errors
/// If the configuration cannot be written.
pub(crate) fn prepare(dir: &DataDir, ports: &Ports, program: &Path) -> Result<Launch> {
    let targets = dir.data(Part::Prometheus).join("targets.json");
    if !targets.exists() {
        write_atomically(&targets, b"[]\n", 0o644)?;
    }
    let config = config(ports, &targets);
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

fn config(ports: &Ports, targets: &Path) -> String {
    include_str!("../../assets/prometheus.yml")
        .replace("@TARGETS@", &targets.display().to_string())
        .replace("@CLICKHOUSE_HTTP_PORT@", &ports.clickhouse_http.to_string())
}

/// # Errors
/// Until it is ready to answer queries.
pub(crate) fn probe(ports: &Ports) -> Result<()> {
    http::get(&format!("http://127.0.0.1:{}/-/ready", ports.prometheus)).map(drop)
}
