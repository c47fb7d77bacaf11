//! Kind `window`: the dedup index alone, measured by `millrace-window` in a process of its own for each size.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::child::{Child, program};
use super::result::Run;
use super::spec::{Window, ids_name};
use super::world::World;

/// For 100 million ids.
const ENDS_WITHIN: Duration = Duration::from_secs(1800);

/// Runs every size, `rounds` times in turns.
///
/// # Errors
/// None but of the runner itself: a run that fails is in the results, with the reason.
pub(crate) fn run(world: &World, window: &Window, rounds: u32, tell: &mut dyn FnMut(&Run)) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for &ids in &window.ids {
            let mut run = Run::new(&ids_name(ids), round);
            if let Err(error) = measure(world, ids, &mut run) {
                run.failure = Some(format!("{error:#}"));
            }
            tell(&run);
            runs.push(run);
            if world.interrupt.requested() {
                return Ok(runs);
            }
        }
    }
    Ok(runs)
}

fn measure(world: &World, ids: u64, run: &mut Run) -> Result<()> {
    let mut command = Command::new(program("millrace-window")?);
    command.args(["--ids", &ids.to_string()]);
    let child = Child::start(command, &world.file(&format!("{}.log", world.name("window"))))?;
    world.interrupt.until("the index is measured", ENDS_WITHIN, || Ok(child.has_ended().then_some(())))?;
    let log = child.log();
    child.finish(Duration::from_secs(5))?;
    let object = log.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    flatten("", &object.context("millrace-window printed no JSON")?, run);
    Ok(())
}

/// Numbers by their path in the object.
fn flatten(path: &str, value: &Value, run: &mut Run) {
    match value {
        Value::Number(number) => run.set(path, number.as_f64().unwrap_or(f64::NAN)),
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&if path.is_empty() { name.clone() } else { format!("{path}_{name}") }, value, run);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_figures_by_their_path() {
        let mut run = Run::new("1 ids", 1);
        flatten("", &serde_json::json!({ "a": 1, "b": { "c": 2.5, "d": "text" } }), &mut run);
        assert_eq!(run.figures, [("a".to_owned(), 1.0), ("b_c".to_owned(), 2.5)].into());
    }
}
