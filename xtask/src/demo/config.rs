//! The demo's configuration: the one that the README shows, pointed at the running stack, with the sections of the
//! topics that are shown.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::topic::Topic;
use crate::stack::{StackFile, clone_root};

/// What the commented default says, and what stands there instead.
fn replacements(stack: &StackFile) -> [(&'static str, String); 6] {
    [
        ("bootstrap_servers = ", quoted(&stack.kafka)),
        ("url = \"http://localhost:8081", quoted(&stack.registry)),
        ("url = \"http://localhost:8123", quoted(&stack.clickhouse)),
        ("password_file = ", quoted(&stack.pipeline.password_file.display().to_string())),
        ("#listen = ", quoted("127.0.0.1:0")),
        ("#format = ", quoted("text")),
    ]
}

const DEFAULT: &str = "consumers/assets/millrace.toml";
const PAYMENTS: &str = "consumers/assets/payments.toml";

/// Writes the configuration into the demo's folder.
pub(crate) fn write(dir: &Path, stack: &StackFile, topics: &[Topic]) -> Result<PathBuf> {
    let default = adapt(&read(DEFAULT)?, stack)?;
    // The default ends with the section of orders.
    let (head, orders) = default.split_once("[[topics]]").with_context(|| format!("{DEFAULT} has no topic"))?;
    let mut text = head.to_owned();
    for topic in topics {
        match topic {
            Topic::Orders => text.push_str(&format!("[[topics]]{orders}\n")),
            Topic::Payments => text.push_str(&read(PAYMENTS)?),
        }
    }
    let path = dir.join("millrace.toml");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn read(file: &str) -> Result<String> {
    let path = clone_root()?.join(file);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn adapt(text: &str, stack: &StackFile) -> Result<String> {
    let replacements = replacements(stack);
    let mut found = [false; 6];
    let mut adapted = String::with_capacity(text.len());
    for line in text.lines() {
        let at = replacements.iter().position(|(start, _)| line.starts_with(start));
        match at {
            Some(at) if !found[at] => {
                found[at] = true;
                let key = line.trim_start_matches('#').split('=').next().unwrap_or_default();
                adapted.push_str(&format!("{key}= {}\n", replacements[at].1));
            }
            _ => adapted.push_str(&format!("{line}\n")),
        }
    }
    if let Some(at) = found.iter().position(|found| !found) {
        bail!("{DEFAULT} has no line that starts with `{}`", replacements[at].0);
    }
    Ok(adapted)
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
