//! `--observe`: what operators would see of the run. Prometheus scrapes pipeline, producers and ClickHouse, and the panels of
//! the shipped dashboards are drawn from what it has.

use std::{
    fs, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Demo, child::Child, metrics};
use crate::{
    dashboards,
    stack::{self, StackFile, tools},
};

const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// So much before the end is drawn last, in seconds: a rate over the time when all has landed is none.
const BEFORE: f64 = 3.0;

/// Says where Prometheus is.
///
/// # Errors
/// If the stack has none.
pub(super) fn tell(stack: &StackFile) -> Result<()> {
    let url = stack.prometheus.as_ref().context("the stack has no Prometheus; --observe needs it")?;
    println!("      Prometheus           {url}");
    println!("      alerts               {url}/alerts");
    Ok(())
}

/// Makes sure of what this needs before anything is started.
///
/// # Errors
/// If Prometheus is not installed, with the command that installs it.
pub(super) fn require(install_missing: bool) -> Result<()> {
    tools::require_for_alerts(install_missing)
}

/// Lets Prometheus scrape the pipeline and those producers that run.
///
/// # Errors
/// If one of them does not say where its metrics are.
pub(super) fn scrape(demo: &Demo, pipeline: &Child, producers: &[Child]) -> Result<()> {
    let mut targets = vec![("millrace", metrics::url(&pipeline.log()).context("millrace does not say its address")?)];
    for producer in producers {
        targets.push(("producer", address(demo, producer)?));
    }
    stack::scrape(demo.dir, &demo.stack.file().clickhouse, &targets)
}

/// What the generator says on its first line.
fn address(demo: &Demo, producer: &Child) -> Result<String> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let log = producer.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(url) = lines.find_map(|line| line["metrics"].as_str().map(str::to_owned)) {
            return Ok(url.trim_end_matches("/metrics").to_owned());
        }
        demo.interrupt.check()?;
        thread::sleep(LOOK);
    }
    bail!("the generator does not say where its metrics are within {PATIENCE:?}; its log:\n{}", producer.log());
}

/// Draws every dashboard, as it was at the end of a run that took so long.
///
/// # Errors
/// If Prometheus does not answer, or a picture cannot be written.
pub(super) fn draw(demo: &Demo, seconds: f64, ended: SystemTime) -> Result<()> {
    let url = demo.stack.file().prometheus.as_ref().context("the stack has no Prometheus; --observe needs it")?;
    let until = ended.duration_since(UNIX_EPOCH).context("tell the time")?.as_secs_f64() - BEFORE;
    let folder = demo.dir.join("panels");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    for name in dashboards::names() {
        let dashboard = dashboards::folder()?.join(format!("{name}.json"));
        let picture = folder.join(format!("{name}.svg"));
        demo.bench("panels")
            .args(["--prometheus", url, "--until", &until.to_string()])
            .args(["--seconds", &seconds.ceil().max(2.0 * BEFORE).to_string(), "--dashboard"])
            .arg(&dashboard)
            .arg("--out")
            .arg(&picture)
            .run_quietly()?;
        println!("      panels               {}", super::relative(&picture));
    }
    Ok(())
}
