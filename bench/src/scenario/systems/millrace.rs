//! `millrace run` with the shipped configuration, pointed at the run's topics and database.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Job, System};
use crate::scenario::child::{Child, program};
use crate::scenario::config::Config;
use crate::scenario::http;
use crate::scenario::interrupt::Interrupt;
use crate::scenario::result::Figures;
use crate::scenario::scrape;

/// Beyond its own drain timeout of 20 s.
const STOPS_WITHIN: Duration = Duration::from_secs(40);
const READY_WITHIN: Duration = Duration::from_secs(300);

/// One or more processes of one group.
pub(crate) struct Millrace {
    processes: Vec<Child>,
}

impl Millrace {
    /// Writes the configuration and starts it.
    ///
    /// # Errors
    /// If the configuration has no such keys, or the program cannot be started.
    pub(crate) fn start(job: &Job<'_>) -> Result<Self> {
        let (stack, topics) = (&job.world.stack, &job.source.topics);
        let mut config = Config::printed()?;
        config.set("[kafka]", "bootstrap_servers", &stack.kafka)?;
        config.set("[kafka]", "group_id", &job.group)?;
        config.set("[registry]", "url", &stack.registry)?;
        config.set("[clickhouse]", "url", &stack.clickhouse)?;
        config.set("[clickhouse]", "database", &job.database.name)?;
        config.set("[clickhouse]", "password_file", &stack.pipeline.password_file.display().to_string())?;
        config.set("[http]", "listen", "127.0.0.1:0")?;
        config.set("[log]", "format", "text")?;
        config.set("[[topics]]", "name", &topics.orders)?;
        config.set("[[topics]]", "dead_letter_topic", &job.dead_letter_topic)?;
        config.set_reference("customers", &topics.customers)?;
        config.set_reference("products", &topics.products)?;
        config.apply(job.config)?;
        let file = job.world.file(&format!("{}.toml", job.group));
        fs::write(&file, config.text()).with_context(|| format!("write {}", file.display()))?;
        let mut processes = Vec::new();
        for number in 0..job.consumers {
            let mut command = Command::new(program("millrace")?);
            command.args(["run", "--config"]).arg(&file).env_remove("MILLRACE_CONFIG");
            processes.push(Child::start(command, &file.with_extension(format!("{number}.log")))?);
        }
        Ok(Self { processes })
    }

    /// Waits until it would process an event.
    ///
    /// # Errors
    /// If it ends or does not get ready.
    pub(crate) fn until_ready(&mut self, interrupt: &Interrupt) -> Result<()> {
        interrupt.until("millrace is ready", READY_WITHIN, || {
            self.check()?;
            let ready = |child: &Child| url(child).is_some_and(|url| http::get(&format!("{url}/readyz")).is_ok());
            Ok(self.processes.iter().all(ready).then_some(()))
        })
    }

    /// `/metrics` of all its processes, one after the other; what does not answer (yet) is left out.
    pub(crate) fn metrics(&self) -> String {
        let text = |child: &Child| url(child).and_then(|url| http::get(&format!("{url}/metrics")).ok());
        self.processes.iter().filter_map(text).collect()
    }
}

/// The address that it says in its log, once it has.
fn url(child: &Child) -> Option<String> {
    let log = child.log();
    let line = log.lines().find(|line| line.contains("metrics and health are served"))?;
    Some(format!("http://{}", line.split("address=").nth(1)?.split_whitespace().next()?))
}

/// Rows, dropped duplicates and dead letters.
pub(crate) fn settled(metrics: &str) -> u64 {
    let names = ["millrace_rows_inserted_total", "millrace_duplicates_dropped_total", "millrace_dead_letters_total"];
    names.into_iter().map(|name| scrape::sum(metrics, name) as u64).sum()
}

impl System for Millrace {
    fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Child::pid).collect()
    }

    fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Child::check_running)
    }

    fn settled(&self) -> Option<u64> {
        Some(settled(&self.metrics()))
    }

    fn figures(&self) -> Figures {
        let text = self.metrics();
        let mut figures = Figures::new();
        let batches = scrape::sum(&text, "millrace_batch_rows_count");
        let freshness = scrape::buckets(&text, "millrace_freshness_seconds");
        for (name, value) in [
            ("rows_per_batch", (batches > 0.0).then(|| scrape::sum(&text, "millrace_batch_rows_sum") / batches)),
            ("own_freshness_p50_ms", scrape::quantile(&freshness, 0.5).map(|seconds| seconds * 1000.0)),
            ("own_freshness_p99_ms", scrape::quantile(&freshness, 0.99).map(|seconds| seconds * 1000.0)),
            ("own_freshness_p999_ms", scrape::quantile(&freshness, 0.999).map(|seconds| seconds * 1000.0)),
            ("insert_retries", Some(scrape::sum(&text, "millrace_insert_retries_total"))),
        ] {
            figures.extend(value.map(|value| (name.to_owned(), value)));
        }
        figures
    }

    fn stop(self: Box<Self>) -> Result<()> {
        self.processes.into_iter().try_for_each(|child| child.stop(STOPS_WITHIN))
    }
}
