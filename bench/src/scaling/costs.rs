//! What the model rests on: figures of `bench/results/*.json`, each with the day and commit of its measurement.

use std::path::Path;

use anyhow::{Context, Result};

use crate::scenario::result::Report;

/// A figure that was measured, or follows from some by arithmetic.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) what: &'static str,
    pub(crate) value: String,
    /// Scenario, variants and figure; day; commit.
    pub(crate) source: String,
}

/// Costs of one event and of what stays the same however many there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Costs {
    /// Cores that a consumer takes whatever it reads.
    pub(crate) consumer_idle_cores: f64,
    /// Seconds of one core.
    pub(crate) consumer_per_event: f64,
    /// Seconds of one core for an insert, however small.
    pub(crate) insert_fixed: f64,
    /// Seconds of one core for a row, the merges that keep up with it among them.
    pub(crate) insert_per_row: f64,
    /// Seconds of one core for a row while a short backlog is drained: most merges come later.
    pub(crate) short_insert_per_row: f64,
    /// Seconds of one core of the broker for an event that is read only.
    pub(crate) kafka_read_per_event: f64,
    /// Seconds of one core of the broker for an event that is written and read.
    pub(crate) kafka_per_event: f64,
    /// Rows of an insert that is full by bytes.
    pub(crate) full_insert_rows: f64,
    /// Compressed, as they lie in parts after an insert or few merges.
    pub(crate) disk_bytes_per_row: f64,
    pub(crate) index_bytes_per_id: f64,
    /// Seconds from the start of a process to its first row beside an empty window, and ids loaded in a second.
    pub(crate) takeover_fixed: f64,
    pub(crate) takeover_ids_per_second: f64,
    /// Seconds until the first row of a process, and seconds of one core that a process takes until then.
    pub(crate) start_seconds: f64,
    pub(crate) start_cpu_seconds: f64,
    /// Parts a second that two threads for merges kept up with for half an hour.
    pub(crate) parts_per_second: f64,
}

/// Results by scenario.
pub(crate) struct Results(Vec<Report>);

impl Results {
    /// Reads the scenarios that the model needs.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(format!("{name}.json"));
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
        };
        let names = ["drain", "live", "latency", "soak", "scale", "window", "restart"];
        Ok(Self(names.into_iter().map(read).collect::<Result<_>>()?))
    }

    /// Median of a figure.
    pub(crate) fn get(&self, scenario: &str, variant: &str, figure: &str) -> Result<f64> {
        let value = self.report(scenario)?.medians.get(variant).and_then(|figures| figures.get(figure));
        value.copied().with_context(|| format!("bench/results/{scenario}.json has no {figure} of {variant}"))
    }

    fn report(&self, scenario: &str) -> Result<&Report> {
        let report = self.0.iter().find(|report| report.scenario == scenario);
        report.with_context(|| format!("bench/results/{scenario}.json is of another scenario"))
    }

    fn source(&self, figures: &str, scenarios: &[&str]) -> Result<String> {
        let told = scenarios.iter().map(|name| {
            let report = self.report(name)?;
            Ok(format!("`{name}`, {}, {}", report.date, report.machine.commit))
        });
        Ok(format!("{figures}; {}", told.collect::<Result<Vec<_>>>()?.join("; ")))
    }

    /// Mean of a figure over the variants of `scale` with one consumer.
    fn one_consumer(&self, figure: &str) -> Result<f64> {
        let values = [1, 2, 4, 8].map(|partitions| self.get("scale", &variant(partitions, 1), figure));
        Ok(values.into_iter().sum::<Result<f64>>()? / 4.0)
    }

    /// The costs, and the table of where they come from.
    pub(crate) fn costs(&self) -> Result<(Costs, Vec<Input>)> {
        const MICRO: f64 = 1e-6;
        let drained = |figure: &str| self.get("drain", "millrace", figure);
        let soaked = |figure: &str| self.get("soak", "25000/s", figure);
        let live = |figure: &str| self.get("live", "180000/s", figure);
        let loaded = |ids: u32| {
            let variant = format!("{ids} ids");
            Ok::<_, anyhow::Error>((f64::from(ids), self.get("restart", &variant, "first_row_after_seconds")?))
        };

        // Two points make a line; the others are compared with it by a test.
        let (slow, fast) = (soaked("events_per_second")?, drained("events_per_second")?);
        let (slow_cores, fast_cores) = (slow * soaked("cpu_us_consumer")?, fast * drained("cpu_us_consumer")?);
        let consumer_per_event = (fast_cores - slow_cores) / (fast - slow) * MICRO;
        let consumer_idle_cores = slow_cores * MICRO - slow * consumer_per_event;
        let (few, many) = (soaked("rows_per_batch")?, drained("rows_per_batch")?);
        let insert_fixed =
            (soaked("cpu_us_clickhouse")? - drained("cpu_us_clickhouse")?) / (1.0 / few - 1.0 / many) * MICRO;
        let insert_per_row = drained("cpu_us_clickhouse")? * MICRO - insert_fixed / many;
        let ((small, soon), (large, late)) = (loaded(10_000_000)?, loaded(100_000_000)?);
        let takeover_ids_per_second = (large - small) / (late - soon);
        let takeover_fixed = soon - small / takeover_ids_per_second;

        let events = self.get("scale", &variant(8, 1), "events")?;
        let extra = self.get("scale", &variant(8, 4), "cpu_us_consumer")?
            - self.get("scale", &variant(8, 1), "cpu_us_consumer")?;
        let costs = Costs {
            consumer_idle_cores,
            consumer_per_event,
            insert_fixed,
            insert_per_row,
            short_insert_per_row: self.one_consumer("cpu_us_clickhouse")? * MICRO
                - insert_fixed / self.one_consumer("rows_per_batch")?,
            kafka_read_per_event: drained("cpu_us_kafka")? * MICRO,
            kafka_per_event: live("cpu_us_kafka")? * MICRO,
            full_insert_rows: many,
            disk_bytes_per_row: drained("bytes_per_row")?,
            index_bytes_per_id: self.get("window", "100000000 ids", "bytes_per_id_growing")?,
            takeover_fixed,
            takeover_ids_per_second,
            start_seconds: self.one_consumer("first_row_after_seconds")?,
            start_cpu_seconds: extra * MICRO * events / 3.0,
            parts_per_second: soaked("parts_made")? / 1800.0,
        };
        let line = |what, value: String, figures: &str, scenarios: &[&str]| {
            Ok::<_, anyhow::Error>(Input { what, value, source: self.source(figures, scenarios)? })
        };
        let us = |seconds: f64| format!("{:.2} µs", seconds / MICRO);
        let inputs = vec![
            line("a consumer, for each event", us(consumer_per_event), "line through two points", &["soak", "drain"])?,
            line(
                "a consumer, all the time",
                format!("{consumer_idle_cores:.3} cores"),
                "the same line",
                &["soak", "drain"],
            )?,
            line(
                "ClickHouse, for each insert",
                format!("{:.0} ms", insert_fixed * 1e3),
                "cost of a row over rows of an insert",
                &["soak", "drain"],
            )?,
            line(
                "ClickHouse, for each row, merges that keep up included",
                us(insert_per_row),
                "the same line",
                &["soak", "drain"],
            )?,
            line(
                "Kafka, for each event written and read",
                us(costs.kafka_per_event),
                "cpu_us_kafka at 180,000/s, one copy",
                &["live"],
            )?,
            line("Kafka, for each event read", us(costs.kafka_read_per_event), "cpu_us_kafka", &["drain"])?,
            line(
                "rows of a full insert (48 MiB)",
                format!("{:.0}", costs.full_insert_rows),
                "rows_per_batch",
                &["drain"],
            )?,
            line("a row on disk", format!("{:.0} bytes", costs.disk_bytes_per_row), "bytes_per_row", &["drain"])?,
            line(
                "an id in memory, while the index grows",
                format!("{:.1} bytes", costs.index_bytes_per_id),
                "bytes_per_id_growing at 100 million",
                &["window"],
            )?,
            line(
                "ids loaded at a take-over",
                format!("{:.1} million/s", takeover_ids_per_second / 1e6),
                "line through two points",
                &["restart"],
            )?,
            line(
                "the rest of a take-over, start of the process included",
                format!("{takeover_fixed:.2} s"),
                "the same line",
                &["restart"],
            )?,
            line(
                "start of a process until its first row",
                format!("{:.2} s", costs.start_seconds),
                "first_row_after_seconds, mean over one consumer",
                &["scale"],
            )?,
            line(
                "processor time of a start",
                format!("{:.2} s", costs.start_cpu_seconds),
                "what three more consumers cost at 8 partitions",
                &["scale"],
            )?,
            line(
                "parts that two threads kept merged",
                format!("{:.1}/s", costs.parts_per_second),
                "parts_made in half an hour",
                &["soak"],
            )?,
        ];
        Ok((costs, inputs))
    }
}

/// Name of a variant of `scale`.
pub(crate) fn variant(partitions: u32, consumers: u32) -> String {
    let plural = |number: u32| if number == 1 { "" } else { "s" };
    format!("{partitions} partition{}, {consumers} consumer{}", plural(partitions), plural(consumers))
}
