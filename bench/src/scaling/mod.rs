//! `millrace-bench scaling`: what a number of events a second needs, and how throughput grows with consumers; a model fed with
//! `bench/results/*.json` and nothing else. docs/scaling.md has what it prints.

mod costs;
mod need;
mod page;
mod simulate;

use std::path::PathBuf;

use anyhow::Result;

use self::costs::Results;

/// Where results lie.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of the results
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

/// Prints the tables of docs/scaling.md.
///
/// # Errors
/// A result is missing or cannot be read.
pub fn run(args: &Args) -> Result<()> {
    print!("{}", page::tables(&Results::read(&args.results)?)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::costs::{Costs, Results, variant};
    use super::*;

    const MARKS: [&str; 2] =
        ["<!-- the tables: written by `millrace-bench scaling` -->\n", "<!-- end of the tables -->\n"];
    /// How far the lines of costs may be from the points between those that they go through, as docs/scaling.md says.
    const CONSUMER_ERROR: f64 = 0.2;
    /// The same for ClickHouse; at 50,000/s a prober took two tenths of its time.
    const INSERT_ERROR: f64 = 0.3;
    /// How far the simulation may be from `scale`: half of the variants, and the worst.
    const SCALE_ERRORS: [f64; 2] = [0.2, 0.45];

    /// Costs that can be reckoned with by heart.
    pub(super) const ROUND: Costs = Costs {
        consumer_idle_cores: 0.1,
        consumer_per_event: 1e-6,
        insert_fixed: 0.1,
        insert_per_row: 2e-6,
        short_insert_per_row: 2e-6,
        kafka_read_per_event: 0.5e-6,
        kafka_per_event: 1e-6,
        full_insert_rows: 100_000.0,
        disk_bytes_per_row: 150.0,
        index_bytes_per_id: 20.0,
        takeover_fixed: 1.0,
        takeover_ids_per_second: 1e7,
        start_seconds: 1.0,
        start_cpu_seconds: 0.4,
        parts_per_second: 3.0,
    };

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn results() -> Results {
        Results::read(&root().join("bench/results")).unwrap()
    }

    /// `share` is the error that docs/scaling.md names.
    fn near(what: &str, is: f64, should: f64, share: f64) {
        assert!((is / should - 1.0).abs() <= share, "{what}: the model says {is:.3}, measured was {should:.3}");
    }

    #[test]
    fn the_lines_through_two_points_meet_the_points_between_them() {
        let (results, (costs, _)) = (results(), results().costs().unwrap());
        for (scenario, at) in [("live", "180000/s"), ("latency", "100000/s"), ("latency", "50000/s")] {
            let figure = |figure: &str| results.get(scenario, at, figure).unwrap();
            let rate = figure("events_per_second");
            let consumer = costs.consumer_per_event + costs.consumer_idle_cores / rate;
            near(&format!("consumer, {scenario} {at}"), consumer * 1e6, figure("cpu_us_consumer"), CONSUMER_ERROR);
            let insert = costs.insert_per_row + costs.insert_fixed / figure("rows_per_batch");
            near(&format!("ClickHouse, {scenario} {at}"), insert * 1e6, figure("cpu_us_clickhouse"), INSERT_ERROR);
        }
    }

    #[test]
    fn the_simulation_meets_what_scale_measured_where_it_can() {
        let (results, (costs, _)) = (results(), results().costs().unwrap());
        let mut errors = Vec::new();
        for (partitions, consumers) in page::MEASURED {
            let run = simulate::simulate(&costs, page::as_measured(&results, partitions, consumers).unwrap());
            let measured = results.get("scale", &variant(partitions, consumers), "seconds").unwrap();
            errors.push((run.seconds / measured - 1.0).abs());
        }
        errors.sort_by(f64::total_cmp);
        assert!(errors[errors.len() / 2] <= SCALE_ERRORS[0], "{errors:?}");
        assert!(errors[errors.len() - 1] <= SCALE_ERRORS[1], "{errors:?}");
    }

    #[test]
    fn the_page_on_operations_reckons_with_the_same_costs() {
        let text = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
        let (costs, _) = results().costs().unwrap();
        for line in [
            format!("{:.3} + {:.2} µs × `rate`", costs.consumer_idle_cores, costs.consumer_per_event * 1e6),
            format!("400 MiB + {:.0} bytes × `ids`", costs.index_bytes_per_id),
            format!("{:.2} s + `ids` / {:.1} million", costs.takeover_fixed, costs.takeover_ids_per_second / 1e6),
            format!("({:.2} µs + {:.0} ms / rows", costs.insert_per_row * 1e6, costs.insert_fixed * 1e3),
            format!("{:.0} bytes × rows × copies", costs.disk_bytes_per_row),
        ] {
            assert!(text.contains(&line), "docs/operations.md does not say: {line}");
        }
    }

    #[test]
    fn the_page_has_what_the_model_prints() {
        let file = root().join("docs/scaling.md");
        let text = std::fs::read_to_string(&file).unwrap();
        let (head, rest) = text.split_once(MARKS[0]).unwrap();
        let (_, tail) = rest.split_once(MARKS[1]).unwrap();
        let tables = page::tables(&results()).unwrap();
        let should = [head, MARKS[0], "\n", &tables, "\n", MARKS[1], tail].concat();
        if std::env::var_os("MILLRACE_BLESS").is_some() {
            std::fs::write(&file, should).unwrap();
            return;
        }
        assert!(text == should, "docs/scaling.md differs from the model; look at it, then MILLRACE_BLESS=1");
    }
}
