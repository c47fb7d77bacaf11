//! `millrace-bench report`: tables and pictures of `bench/README.md`, made from `bench/results/*.json` and nothing else.

mod charts;
mod markdown;
mod pictures;
pub(crate) mod svg;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::scenario::result::Report;

/// Between these lines of the page everything is replaced.
const BEGIN: &str = "<!-- results: written by `cargo xtask bench --report` -->";
const END: &str = "<!-- end of results -->";

/// The sequence on the page; what is not named comes last.
const SEQUENCE: [&str; 11] =
    ["drain", "peers", "live", "live_replay", "latency", "soak", "scale", "window", "restart", "interleaved", "poison"];

/// Where results lie, and the page.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of the results; pictures are written beside them
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
    /// Page with the two marks between which the tables go
    #[arg(long, default_value = "bench/README.md")]
    page: PathBuf,
}

/// Reads all results, draws the pictures and writes the tables.
///
/// # Errors
/// A file cannot be read or written, or the page lacks its marks.
pub fn run(args: &Args) -> Result<()> {
    let reports = read_all(&args.results)?;
    ensure!(!reports.is_empty(), "there are no results in {}; `cargo xtask bench` writes them", args.results.display());
    let mut sections = Vec::new();
    for report in &reports {
        let pictures = pictures::of(report);
        for picture in &pictures {
            let path = args.results.join(format!("{}_{}.svg", report.scenario, picture.name));
            fs::write(&path, &picture.svg).with_context(|| format!("write {}", path.display()))?;
        }
        sections.push(markdown::section(report, &pictures));
    }
    let page = fs::read_to_string(&args.page).with_context(|| format!("read {}", args.page.display()))?;
    let page = replaced(&page, &sections.join("\n"))?;
    fs::write(&args.page, page).with_context(|| format!("write {}", args.page.display()))
}

fn read_all(folder: &Path) -> Result<Vec<Report>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read the folder {}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str::<Report>(&text).with_context(|| format!("read {}", path.display()))
    };
    let mut reports = paths.map(read).collect::<Result<Vec<Report>>>()?;
    let place = |name: &str| SEQUENCE.iter().position(|known| *known == name).unwrap_or(SEQUENCE.len());
    reports.sort_by(|a, b| (place(&a.scenario), &a.scenario).cmp(&(place(&b.scenario), &b.scenario)));
    Ok(reports)
}

fn replaced(page: &str, results: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("the page lacks the line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("the page lacks the line {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{results}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made up, with a run that failed, runs that lost and a figure of each sort. `MILLRACE_BLESS=1` writes the expected
    /// files anew.
    fn golden(name: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let report: Report = serde_json::from_str(&text).unwrap();
        let pictures = pictures::of(&report);
        assert!(!pictures.is_empty());
        let mut files = vec![(format!("{name}.md"), markdown::section(&report, &pictures))];
        files.extend(pictures.into_iter().map(|picture| (format!("{name}_{}.svg", picture.name), picture.svg)));
        for (file, is) in files {
            let path = folder.join(file);
            if std::env::var_os("MILLRACE_BLESS").is_some() {
                fs::write(&path, &is).unwrap();
            }
            let should = fs::read_to_string(&path).unwrap_or_default();
            assert!(is == should, "{} differs; look at it, then MILLRACE_BLESS=1", path.display());
        }
    }

    #[test]
    fn peers_side_by_side() {
        golden("peers");
    }

    #[test]
    fn a_load_over_time() {
        golden("live");
    }

    #[test]
    fn freshness_by_percentile() {
        golden("latency");
    }

    #[test]
    fn partitions_and_consumers() {
        golden("scale");
    }

    #[test]
    fn only_what_lies_between_the_marks_is_replaced() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&page, "new\n").unwrap(), format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert!(replaced("a\n", "new").is_err());
    }
}
