//! The configuration that `millrace config` prints, changed line by line. It knows no key by itself.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::child::program;
use super::spec::Overrides;

/// The text of a configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config(String);

impl Config {
    /// What this `millrace` prints.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn printed() -> Result<Self> {
        let mut command = Command::new(program("millrace")?);
        let output = command.arg("config").stdin(Stdio::null()).output().context("start millrace config")?;
        ensure!(output.status.success(), "millrace config failed ({})", output.status);
        Ok(Self(String::from_utf8(output.stdout).context("read what millrace config prints")?))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Sets a key, in the first section with this header (such as `[kafka]`), to a text.
    ///
    /// # Errors
    /// If there is no such section.
    pub(crate) fn set(&mut self, section: &str, key: &str, value: &str) -> Result<()> {
        self.set_raw(section, key, &format!("{value:?}"))
    }

    /// Another topic for the lookup that reads the topic `from`.
    ///
    /// # Errors
    /// If there is no such lookup.
    pub(crate) fn set_reference(&mut self, from: &str, to: &str) -> Result<()> {
        let line = format!("\ntopic = \"{from}\"\n");
        ensure!(self.0.contains(&line), "the printed configuration has no lookup in {from}");
        self.0 = self.0.replace(&line, &format!("\ntopic = {to:?}\n"));
        Ok(())
    }

    /// What a scenario says of its own.
    ///
    /// # Errors
    /// If there is no such section.
    pub(crate) fn apply(&mut self, overrides: &Overrides) -> Result<()> {
        for (section, keys) in overrides {
            for (key, value) in keys {
                let header = if section == "topics" { "[[topics]]".to_owned() } else { format!("[{section}]") };
                // Texts, numbers and flags are written alike in both.
                let value = serde_json::to_string(value).context("write a setting")?;
                self.set_raw(&header, key, &value)?;
            }
        }
        Ok(())
    }

    fn set_raw(&mut self, section: &str, key: &str, value: &str) -> Result<()> {
        let mut lines: Vec<String> = self.0.lines().map(str::to_owned).collect();
        let Some(header) = lines.iter().position(|line| line.trim_start_matches('#') == section) else {
            bail!("the printed configuration has no section {section}");
        };
        // A section that is left out unless it is wanted.
        lines[header] = section.to_owned();
        let rest = &lines[header + 1..];
        let end = rest.iter().position(|line| line.trim_start_matches('#').starts_with('[')).unwrap_or(rest.len());
        let is_key =
            |line: &String| line.trim_start_matches('#').split_once('=').is_some_and(|(name, _)| name.trim() == key);
        let line = format!("{key} = {value}");
        match rest[..end].iter().position(is_key) {
            Some(at) => lines[header + 1 + at] = line,
            None => lines.insert(header + 1, line),
        }
        self.0 = lines.join("\n") + "\n";
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_where_they_stand_commented_or_not_and_added_where_they_do_not() {
        let mut config = Config("[a]\n# words\n#k = 1\n[b]\nk = 2\ntopic = \"t\"\n".into());
        config.set("[a]", "k", "x").unwrap();
        config.set("[b]", "new", "y").unwrap();
        config.set_reference("t", "u").unwrap();
        let overrides = toml::from_str("[b]\nk = 7").unwrap();
        config.apply(&overrides).unwrap();
        assert_eq!(config.text(), "[a]\n# words\nk = \"x\"\n[b]\nnew = \"y\"\nk = 7\ntopic = \"u\"\n");
        let mut off = Config("#[d]\n#k = 1\n".into());
        off.set("[d]", "k", "x").unwrap();
        assert_eq!(off.text(), "[d]\nk = \"x\"\n");
        assert!(config.set("[c]", "k", "x").is_err());
        assert!(config.set_reference("t", "u").is_err());
    }
}
