//! `cargo xtask dashboards`: writes the Grafana dashboards in `k8s/observability/dashboards/`, each made of a list of panels
//! here. A test fails where the files are not what this writes; the end-to-end tests run every expression of the files.

mod clickhouse;
mod model;
mod overview;
mod partitions;
mod producers;

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};

use self::model::Dashboard;
use crate::stack::clone_root;

/// Write the Grafana dashboards anew
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder to write them to [default: k8s/observability/dashboards of this clone]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// In the sequence in which somebody looks at them.
fn all() -> [Dashboard; 4] {
    [overview::dashboard(), partitions::dashboard(), clickhouse::dashboard(), producers::dashboard()]
}

/// Where the files are.
///
/// # Errors
/// If no clone is found.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(clone_root()?.join("k8s/observability/dashboards"))
}

/// Names of the dashboards' files, without their ending.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    all().into_iter().map(|dashboard| dashboard.name)
}

/// # Errors
/// If a file cannot be written.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let folder = args.out.clone().map_or_else(folder, Ok)?;
    for dashboard in all() {
        let path = folder.join(format!("{}.json", dashboard.name));
        fs::write(&path, dashboard.text()).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_files_are_what_this_writes() {
        for dashboard in all() {
            let path = folder().unwrap().join(format!("{}.json", dashboard.name));
            let written = fs::read_to_string(&path).unwrap();
            assert!(written == dashboard.text(), "{}: write it anew with `cargo xtask dashboards`", path.display());
        }
        let files = fs::read_dir(folder().unwrap()).unwrap().count();
        assert_eq!(files, all().len(), "a file that nothing here writes");
    }

    #[test]
    fn panels_of_a_dashboard_have_names_of_their_own_and_do_not_overlap() {
        for dashboard in all() {
            let json: serde_json::Value = serde_json::from_str(&dashboard.text()).unwrap();
            let (mut cells, mut titles, mut ids) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
            for panel in json["panels"].as_array().unwrap() {
                assert!(titles.insert(panel["title"].to_string()), "{}: {}", dashboard.name, panel["title"]);
                assert!(ids.insert(panel["id"].as_u64().unwrap()));
                let of = |key: &str| panel["gridPos"][key].as_u64().unwrap();
                assert!(of("x") + of("w") <= 24, "{panel}");
                for x in of("x")..of("x") + of("w") {
                    for y in of("y")..of("y") + of("h") {
                        assert!(cells.insert((x, y)), "{}: {} lies on another", dashboard.name, panel["title"]);
                    }
                }
            }
        }
    }
}
