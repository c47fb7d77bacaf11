//! The demo's configuration: the one that the README shows, pointed at the running stack.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

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

/// Writes the configuration into the demo's folder.
pub(super) fn write(dir: &Path, stack: &StackFile) -> Result<PathBuf> {
    let default = clone_root()?.join("consumers/assets/millrace.toml");
    let text = fs::read_to_string(&default).with_context(|| format!("read {}", default.display()))?;
    let path = dir.join("millrace.toml");
    fs::write(&path, adapt(&text, stack)?).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
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
        bail!("consumers/assets/millrace.toml has no line that starts with `{}`", replacements[at].0);
    }
    Ok(adapted)
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
