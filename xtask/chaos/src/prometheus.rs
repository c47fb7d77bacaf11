//! A Prometheus of a test's own: it scrapes what the test starts, by the rules that are shipped, with every duration of them
//! shortened by the same factor.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::stack::{get, until};

/// What is scraped: the name of the job, host and port, path.
pub type Target<'a> = (&'a str, &'a str, &'a str);

/// A running Prometheus; it does not outlive this.
pub struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    /// Starts one with its data and configuration in this folder; every target is scraped four times a second.
    pub fn start(folder: &Path, rules: &str, targets: &[Target]) -> Self {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("rules.yml"), rules).unwrap();
        let mut config = String::from(
            "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}\n\
             rule_files: [rules.yml]\nscrape_configs:\n",
        );
        for (job, address, path) in targets {
            // All that ClickHouse tells takes it a while.
            let seldom = if *job == "clickhouse" { "scrape_interval: 1s, scrape_timeout: 1s, " } else { "" };
            config.push_str(&format!(
                "  - {{job_name: {job}, {seldom}metrics_path: {path}, static_configs: [{{targets: ['{address}']}}]}}\n"
            ));
        }
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = File::create(folder.join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is on the PATH (Debian package: prometheus)");
        let this = Self { child, url: format!("http://127.0.0.1:{port}") };
        until("Prometheus is ready", Duration::from_secs(20), || {
            get(&format!("{}/-/ready", this.url)).is_some_and(|(status, _)| status == 200)
        });
        this
    }

    /// The values of an expression, now.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let data = self.ask(&format!("query?query={}", percent_encoded(expression)));
        data["result"].as_array().cloned().unwrap_or_default()
    }

    /// Names and expressions of the rules as Prometheus has read them: those that record, and those that alert.
    pub fn rules(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let data = self.ask("rules");
        let groups = data["groups"].as_array().unwrap().iter();
        let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
        let of = |kind: &str| {
            let rules = rules.iter().filter(|rule| rule["type"] == kind);
            let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
            rules.map(|rule| (text(rule, "name"), text(rule, "query"))).collect()
        };
        (of("recording"), of("alerting"))
    }

    /// Alerts that fire now: names and severities.
    pub fn firing(&self) -> BTreeMap<String, String> {
        let data = self.ask("alerts");
        let alerts = data["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing");
        let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap().to_owned();
        alerts.map(|alert| (label(alert, "alertname"), label(alert, "severity"))).collect()
    }

    fn ask(&self, what: &str) -> Value {
        let (_, body) = get(&format!("{}/api/v1/{what}", self.url)).expect("Prometheus answers");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{what}: {answer}");
        answer["data"].clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A file or folder of the operators', in the clone that this was built in.
pub fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Rules with all their durations (`[5m]`, `for: 2m`, `interval: 30s`) shortened; nothing else of them changes.
pub fn faster(rules: &str, factor: u64) -> String {
    let mut shortened = String::with_capacity(rules.len());
    let mut rest = rules;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        shortened.push_str(before);
        let digits = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, behind) = from.split_at(digits);
        let unit = behind.chars().next().unwrap_or(' ');
        let alone = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '.');
        let milliseconds: Option<u64> = match unit {
            's' => Some(1_000),
            'm' => Some(60_000),
            'h' => Some(3_600_000),
            'd' => Some(86_400_000),
            _ => None,
        };
        match milliseconds {
            Some(milliseconds) if alone(before.chars().next_back()) && alone(behind.chars().nth(1)) => {
                let shorter = number.parse::<u64>().unwrap() * milliseconds / factor;
                shortened.push_str(&format!("{shorter}ms"));
                rest = &behind[1..];
            }
            _ => {
                shortened.push_str(number);
                rest = behind;
            }
        }
    }
    shortened.push_str(rest);
    shortened
}

/// An alert's expression with every comparison as 0 or 1, so that it has a value while it holds back, too.
pub fn as_figure(expression: &str) -> String {
    [" > ", " < ", " == "].iter().fold(expression.to_owned(), |text, sign| text.replace(sign, &format!("{sign}bool ")))
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_are_shortened() {
        let rules = "interval: 30s\nrecord: topic:slo:increase5m\nexpr: rate(x{le=\"60\"}[5m]) > 0.5 and y[1d] > 14.4 # 5 m\nfor: 2m";
        let expected = "interval: 1000ms\nrecord: topic:slo:increase5m\nexpr: rate(x{le=\"60\"}[10000ms]) > 0.5 and y[2880000ms] > 14.4 # 5 m\nfor: 4000ms";
        assert_eq!(faster(rules, 30), expected);
    }

    #[test]
    fn an_alert_has_a_value_while_it_holds_back() {
        assert_eq!(as_figure("a > 1 and b == 0"), "a > bool 1 and b == bool 0");
    }
}
