//! `millrace-bench panels`: a Grafana dashboard drawn from what a Prometheus has, where no Grafana is at hand. It reads the
//! dashboard's own file, so that what is drawn is what is shipped.

mod draw;
mod prometheus;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use self::draw::Drawn;
use self::prometheus::{Prometheus, Range};

/// What to draw, from where, to which file.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Prometheus, such as http://localhost:9090
    #[arg(long)]
    prometheus: String,
    /// Dashboard in Grafana's JSON
    #[arg(long)]
    dashboard: PathBuf,
    /// Picture to write (SVG)
    #[arg(long)]
    out: PathBuf,
    /// How far back from now, or from --until
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// End, in seconds since 1970; by default now
    #[arg(long)]
    until: Option<f64>,
    /// Window of rates in place of Grafana's $__rate_interval
    #[arg(long, default_value = "5s")]
    rate_interval: String,
    /// Topics to show, as a regular expression
    #[arg(long, default_value = ".*")]
    topic: String,
}

/// A dashboard, as far as it is drawn.
#[derive(Debug, Deserialize)]
struct Dashboard {
    title: String,
    panels: Vec<Panel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    grid_pos: Place,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    field_config: FieldConfig,
}

/// On Grafana's grid: 24 columns, rows of 30 pixels.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Place {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    expr: String,
    #[serde(default)]
    legend_format: String,
}

#[derive(Debug, Default, Deserialize)]
struct FieldConfig {
    defaults: Defaults,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Defaults {
    unit: String,
    thresholds: Thresholds,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Thresholds {
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    color: String,
    value: Option<f64>,
}

/// Asks for every panel and writes the picture.
///
/// # Errors
/// The dashboard cannot be read, Prometheus refuses an expression, or the picture cannot be written. A panel without data says so.
pub fn run(args: &Args) -> Result<()> {
    let dashboard = read(&args.dashboard)?;
    let prometheus = Prometheus::new(&args.prometheus);
    let until = args.until.map_or_else(prometheus::now, Ok)?;
    let range = Range::new(until, args.seconds)?;
    let mut drawn = Vec::new();
    for panel in &dashboard.panels {
        let mut series = Vec::new();
        for target in &panel.targets {
            let expression =
                target.expr.replace("$__rate_interval", &args.rate_interval).replace("$topic", &args.topic);
            series.extend(prometheus.range(&expression, &target.legend_format, range)?);
        }
        drawn.push(Drawn { panel, series });
    }
    let picture = draw::picture(&dashboard.title, range, &drawn);
    fs::write(&args.out, picture).with_context(|| format!("write {}", args.out.display()))
}

fn read(path: &Path) -> Result<Dashboard> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let dashboard: Dashboard =
        serde_json::from_str(&text).with_context(|| format!("read {} as a dashboard", path.display()))?;
    if dashboard.panels.is_empty() {
        bail!("{} has no panels", path.display());
    }
    Ok(dashboard)
}
