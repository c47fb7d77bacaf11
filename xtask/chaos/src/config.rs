//! The configuration that `millrace config` prints, changed line by line. It knows no key by itself.

/// A configuration's text.
#[derive(Clone)]
pub struct Config(String);

impl Config {
    /// What `millrace config` printed.
    pub fn new(printed: String) -> Self {
        Self(printed)
    }

    /// The text of the file.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// With a text as the value of the first `key` in the first section that has this header, such as `[kafka]`.
    pub fn with(self, section: &str, key: &str, value: &str) -> Self {
        self.with_raw(section, key, &format!("{value:?}"))
    }

    /// With another topic for the lookup that reads the topic `from`.
    pub fn with_reference(self, from: &str, to: &str) -> Self {
        let line = format!("\ntopic = \"{from}\"\n");
        assert!(self.0.contains(&line), "the printed configuration has no lookup in {from}");
        Self(self.0.replace(&line, &format!("\ntopic = {to:?}\n")))
    }

    /// With these servers of ClickHouse as shards in place of the one.
    pub fn with_shards(self, urls: &[String]) -> Self {
        let text = self.with_raw("[clickhouse]", "url", "").0.replacen("\nurl = \n", "\n", 1);
        let shards = urls.iter().map(|url| format!("\n[[clickhouse.shards]]\nreplicas = [{url:?}]\n"));
        Self(text + &shards.collect::<String>())
    }

    /// With a TOML value; a key that is not there, commented or not, is added below the header.
    pub fn with_raw(self, section: &str, key: &str, value: &str) -> Self {
        let mut lines: Vec<String> = self.0.lines().map(str::to_owned).collect();
        let header = lines.iter().position(|line| line.trim_start_matches('#') == section);
        let header = header.unwrap_or_else(|| panic!("the printed configuration has no section {section}"));
        let rest = &lines[header + 1..];
        let end = rest.iter().position(|line| line.trim_start_matches('#').starts_with('[')).unwrap_or(rest.len());
        let is_key =
            |line: &String| line.trim_start_matches('#').split_once('=').is_some_and(|(name, _)| name.trim() == key);
        let line = format!("{key} = {value}");
        match rest[..end].iter().position(is_key) {
            Some(at) => lines[header + 1 + at] = line,
            None => lines.insert(header + 1, line),
        }
        Self(lines.join("\n") + "\n")
    }
}
