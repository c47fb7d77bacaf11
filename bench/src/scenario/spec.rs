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
}

impl Kind {
    /// As files name it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Drain(_) => "drain",
            Self::Live(_) => "live",
            Self::Window(_) => "window",
            Self::Restart(_) => "restart",
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

/// The dedup index alone, filled by `millrace-bench window`.
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
            kind => bail!("kind {kind:?} is unknown; expected drain, live, window or restart"),
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
mod tests {
    use super::*;

    const DRAIN: &str = r#"
        description = "d"
        kind = "drain"
        runs = 3
        [[goals]]
        text = "fast"
        metric = "events_per_second"
        of = "a"
        compare = ">="
        value = 1
        [parameters]
        check = "full"
        load = { events = 10, partitions = 4, duplicates = 0.05, poison = 0.0, compression = "none" }
        [[parameters.variants]]
        name = "a"
        system = "millrace"
        poison = 0.2
        [parameters.variants.config."topics.batch"]
        max_rows = 7
    "#;

    #[test]
    fn every_committed_scenario_can_be_read_and_has_a_goal() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let all = Scenario::read_all(&folder).unwrap();
        assert!(!all.is_empty());
        for scenario in all {
            assert!(!scenario.goals.is_empty(), "{}", scenario.name);
            scenario.quick().check().unwrap();
        }
    }

    #[test]
    fn a_variant_changes_the_common_load_only_where_it_says_so() {
        let Kind::Drain(drain) = Scenario::parse("s", DRAIN).unwrap().kind else { panic!() };
        let load = drain.variants[0].load(&drain.load);
        assert_eq!((load.events, load.shape.duplicates, load.shape.poison), (10, 0.05, 0.2));
        assert_eq!(drain.variants[0].config["topics.batch"]["max_rows"].as_integer(), Some(7));
    }

    #[test]
    fn what_nobody_would_read_is_refused() {
        for (from, to) in [
            ("runs = 3", "runs = 3\nrun = 3"),
            ("check = \"full\"", "check = \"full\"\nseconds = 3"),
            ("poison = 0.2", "poisson = 0.2"),
            ("compression = \"none\"", "compression = \"none\", linger = 3"),
            ("of = \"a\"", "of = \"b\""),
            ("runs = 3", "runs = 0"),
            ("kind = \"drain\"", "kind = \"drip\""),
            ("compare = \">=\"", "compare = \"==\""),
        ] {
            assert!(DRAIN.contains(from));
            assert!(Scenario::parse("s", &DRAIN.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
