//! Scenarios as they stand in `bench/scenarios/*.toml`: parsed and checked, never run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Settings of `millrace` that differ from its defaults: section of the configuration, key, value.
pub(crate) type Overrides = BTreeMap<String, BTreeMap<String, toml::Value>>;

/// A scenario with the name of its file.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) description: String,
    /// How often each measurement is repeated.
    pub(crate) runs: u32,
    pub(crate) goals: Vec<Goal>,
    pub(crate) kind: Kind,
}

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    kind: String,
    runs: u32,
    #[serde(default)]
    goals: Vec<Goal>,
    parameters: toml::Table,
}

/// What a scenario is to show, as a comparison of medians.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goal {
    /// For people.
    pub(crate) text: String,
    /// A figure of the runs.
    pub(crate) metric: String,
    /// Of this variant; not needed where there is one.
    #[serde(default)]
    pub(crate) of: Option<String>,
    /// As a multiple of the same figure of that variant.
    #[serde(default)]
    pub(crate) over: Option<String>,
    pub(crate) compare: Comparison,
    pub(crate) value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Comparison {
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = "<=")]
    AtMost,
}

impl Comparison {
    pub(crate) fn holds(self, is: f64, than: f64) -> bool {
        match self {
            Self::AtLeast => is >= than,
            Self::AtMost => is <= than,
        }
    }
}

/// What is done, with the parameters for it.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Drain(Drain),
    Live(Live),
    Window(Window),
    Restart(Restart),
    Queries(Queries),
}

impl Kind {
    /// As files name it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Drain(_) => "drain",
            Self::Live(_) => "live",
            Self::Window(_) => "window",
            Self::Restart(_) => "restart",
            Self::Queries(_) => "queries",
        }
    }
}

/// Topics are filled first; then systems drain them, in turns.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    pub(crate) load: Load,
    pub(crate) check: Check,
    pub(crate) variants: Vec<Variant>,
}

/// Records are offered at a pace while a system lands them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Live {
    /// Its number of events follows from rate and time.
    pub(crate) load: LoadShape,
    pub(crate) check: Check,
    /// Records per second, tried in this sequence.
    pub(crate) rates: Vec<u64>,
    /// Whether the first rate that is held ends the scenario.
    pub(crate) until_held: bool,
    pub(crate) seconds: u64,
    /// Left out of the percentiles of freshness.
    #[serde(default)]
    pub(crate) warm_up_seconds: u64,
    /// Send what was written beforehand to another topic, instead of making it.
    #[serde(default)]
    pub(crate) replay: bool,
    /// Ask ClickHouse all the time what can be seen.
    #[serde(default)]
    pub(crate) prober: bool,
    #[serde(default)]
    pub(crate) config: Overrides,
}

/// The dedup index alone, filled by `millrace-window`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Window {
    pub(crate) ids: Vec<u64>,
}

/// A process is started beside a table that is full already.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restart {
    /// Ids in the table.
    pub(crate) ids: Vec<u64>,
    /// What is waiting when the process starts.
    pub(crate) load: Load,
    #[serde(default)]
    pub(crate) config: Overrides,
}

/// Named queries are asked of tables that are made inside ClickHouse.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queries {
    /// Events that are made; a sixteenth of them, later steps of orders that were cancelled, are left out.
    pub(crate) rows: u64,
    /// How often each query is asked.
    pub(crate) times: u32,
    pub(crate) variants: Vec<QueriesVariant>,
}

/// A way to lay tables out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueriesVariant {
    pub(crate) name: String,
    /// Run before the shipped tables are filled.
    #[serde(default)]
    pub(crate) statements: Vec<String>,
}

/// What lies in a topic.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    pub(crate) events: u64,
    #[serde(flatten)]
    pub(crate) shape: LoadShape,
}

/// A load without its size.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadShape {
    pub(crate) partitions: i32,
    /// As shares of the events.
    pub(crate) duplicates: f64,
    pub(crate) poison: f64,
    /// Of the batches in Kafka, as `millrace-bench generate --compression` takes it.
    pub(crate) compression: String,
    /// As `millrace-bench generate --schemas` takes it; its default if not there.
    #[serde(default)]
    pub(crate) schemas: Option<String>,
    /// As `millrace-bench generate --traced` takes it; its default if not there.
    #[serde(default)]
    pub(crate) traced: Option<f64>,
}

/// How closely the outcome is compared with what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Check {
    /// Every column of every row, and every dead letter.
    Full,
    /// Rows and different ids, by counting.
    Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SystemName {
    Millrace,
    KafkaEngineVanilla,
    KafkaEngineTuned,
    PlainConsumer,
}

/// One of several measurements that take turns, with what it has of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) system: SystemName,
    /// Processes.
    #[serde(default = "one")]
    pub(crate) consumers: u32,
    #[serde(default)]
    pub(crate) partitions: Option<i32>,
    #[serde(default)]
    pub(crate) duplicates: Option<f64>,
    #[serde(default)]
    pub(crate) poison: Option<f64>,
    #[serde(default)]
    pub(crate) schemas: Option<String>,
    #[serde(default)]
    pub(crate) config: Overrides,
}

const fn one() -> u32 {
    1
}

impl Variant {
    /// The common load, with what this variant has of its own.
    pub(crate) fn load(&self, common: &Load) -> Load {
        let mut load = common.clone();
        let shape = &mut load.shape;
        shape.partitions = self.partitions.unwrap_or(shape.partitions);
        shape.duplicates = self.duplicates.unwrap_or(shape.duplicates);
        shape.poison = self.poison.unwrap_or(shape.poison);
        shape.schemas = self.schemas.clone().or(shape.schemas.take());
        load
    }
}

/// `--quick` leaves so many events, and so many seconds.
const QUICK_EVENTS: u64 = 100_000;
const QUICK_SECONDS: u64 = 8;
const QUICK_RATE: u64 = 20_000;
const QUICK_IDS: u64 = 200_000;

impl Scenario {
    /// Reads one file.
    ///
    /// # Errors
    /// A key is unknown or missing, or a value makes no sense.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a scenario has a file name")?;
        let text = std::fs::read_to_string(path).with_context(|| format!("read the scenario {}", path.display()))?;
        Self::parse(name, &text).with_context(|| format!("read the scenario {}", path.display()))
    }

    /// All scenarios of a folder, by name.
    ///
    /// # Errors
    /// The folder or one of the files cannot be read.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("read the folder {}", folder.display()))?;
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        let kind = match file.kind.as_str() {
            "drain" => Kind::Drain(parameters(file.parameters)?),
            "live" => Kind::Live(parameters(file.parameters)?),
            "window" => Kind::Window(parameters(file.parameters)?),
            "restart" => Kind::Restart(parameters(file.parameters)?),
            "queries" => Kind::Queries(parameters(file.parameters)?),
            kind => bail!("kind {kind:?} is unknown; expected drain, live, window, restart or queries"),
        };
        let scenario =
            Self { name: name.to_owned(), description: file.description, runs: file.runs, goals: file.goals, kind };
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.runs > 0, "runs is 0");
        let variants = self.variants();
        ensure!(!variants.is_empty(), "there is nothing to measure");
        for (at, name) in variants.iter().enumerate() {
            ensure!(!variants[..at].contains(name), "{name} is there twice");
        }
        for goal in &self.goals {
            for name in goal.of.iter().chain(&goal.over) {
                ensure!(variants.contains(name), "the goal {:?} names {name}, which is not measured", goal.text);
            }
        }
        Ok(())
    }

    /// Names of what is measured; in the results, each run bears one of them.
    pub(crate) fn variants(&self) -> Vec<String> {
        match &self.kind {
            Kind::Drain(drain) => drain.variants.iter().map(|variant| variant.name.clone()).collect(),
            Kind::Live(live) => live.rates.iter().map(|rate| rate_name(*rate)).collect(),
            Kind::Window(window) => window.ids.iter().map(|ids| ids_name(*ids)).collect(),
            Kind::Restart(restart) => restart.ids.iter().map(|ids| ids_name(*ids)).collect(),
            Kind::Queries(queries) => queries.variants.iter().map(|variant| variant.name.clone()).collect(),
        }
    }

    /// The same with so few events that it shows whether it works, and nothing else.
    #[must_use]
    pub(crate) fn quick(mut self) -> Self {
        self.runs = 1;
        self.goals.clear();
        match &mut self.kind {
            Kind::Drain(drain) => drain.load.events = drain.load.events.min(QUICK_EVENTS),
            Kind::Live(live) => {
                live.rates.iter_mut().for_each(|rate| *rate = (*rate).min(QUICK_RATE));
                live.rates.dedup();
                live.seconds = live.seconds.min(QUICK_SECONDS);
                live.warm_up_seconds = live.warm_up_seconds.min(1);
            }
            Kind::Window(window) => {
                window.ids.iter_mut().for_each(|ids| *ids = (*ids).min(QUICK_IDS));
                window.ids.dedup();
            }
            Kind::Restart(restart) => {
                restart.ids.iter_mut().for_each(|ids| *ids = (*ids).min(QUICK_IDS));
                restart.ids.dedup();
                restart.load.events = restart.load.events.min(QUICK_EVENTS);
            }
            Kind::Queries(queries) => {
                queries.rows = queries.rows.min(QUICK_EVENTS);
                queries.times = 3;
            }
        }
        self
    }
}

/// The name of a variant that is a rate.
pub(crate) fn rate_name(rate: u64) -> String {
    format!("{rate}/s")
}

/// The name of a variant that is a number of ids.
pub(crate) fn ids_name(ids: u64) -> String {
    format!("{ids} ids")
}

fn parameters<T: DeserializeOwned>(table: toml::Table) -> Result<T> {
    table.try_into().context("read [parameters]")
}

#[cfg(test)]
mod tests;
