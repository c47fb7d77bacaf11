//! A headless Chromium, driven by chromedriver over WebDriver (plain HTTP on loopback).

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use openssl::base64;
use serde_json::{Value, json};

use crate::interrupt::Interrupt;

/// Longest wait for an answer of the driver.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for something to appear in the page.
const APPEARS_WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const STARTED: &str = "was started successfully on port ";
/// Key of an element in answers, WebDriver section 12.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window; ended when dropped.
pub(super) struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    interrupt: Interrupt,
}

impl Browser {
    /// # Errors
    /// If driver or browser do not start.
    pub(super) fn start(interrupt: Interrupt) -> Result<Self> {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start chromedriver")?;
        let output = driver.stdout.take().context("read what chromedriver prints")?;
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        // From here on dropping it ends the driver.
        let mut browser = Self { driver, session: String::new(), agent, interrupt };
        let mut lines = BufReader::new(output).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once(STARTED)?;
            rest.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.context("chromedriver ended without a port")?;
        // A pipe that nobody reads would stop it once it is full.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let arguments = [
            "--headless=new",
            // As root, and in containers, there is no sandbox; nothing but our own page is opened.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let url = format!("http://127.0.0.1:{port}/session");
        let id =
            browser.post(&url, &wanted)?["sessionId"].as_str().context("chromedriver names no session")?.to_owned();
        browser.session = format!("{url}/{id}");
        Ok(browser)
    }

    fn post(&self, url: &str, body: &Value) -> Result<Value> {
        let mut response = self
            .agent
            .post(url)
            .header("content-type", "application/json")
            .send(body.to_string())
            .context("ask chromedriver")?;
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string().context("read its answer")?;
        let mut answer: Value = serde_json::from_str(&text).context("read its answer as JSON")?;
        if response.status() != 200 {
            bail!(
                "chromedriver: {}",
                answer["value"]["message"].as_str().unwrap_or(&text).lines().next().unwrap_or_default()
            );
        }
        Ok(answer["value"].take())
    }

    fn command(&self, path: &str, body: &Value) -> Result<Value> {
        self.interrupt.check()?;
        self.post(&format!("{}{path}", self.session), body)
    }

    pub(super) fn open(&self, url: &str) -> Result<()> {
        self.command("/url", &json!({ "url": url })).map(drop)
    }

    /// What the body of a function answers in the page.
    pub(super) fn run(&self, script: &str) -> Result<Value> {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// As [`Browser::run`], for what answers later: the last argument is the function that takes the answer.
    pub(super) fn run_async(&self, script: &str) -> Result<Value> {
        self.command("/execute/async", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true in the page.
    ///
    /// # Errors
    /// If it does not become so, with what the page says instead.
    pub(super) fn until(&self, what: &str, expression: &str) -> Result<()> {
        let begun = Instant::now();
        // What it looks at may not be there yet.
        let script = format!("try {{ return Boolean({expression}) }} catch {{ return false }}");
        while self.run(&script)? != true {
            if begun.elapsed() > APPEARS_WITHIN {
                let text = self.run("return document.body.innerText")?;
                return Err(anyhow!(
                    "{what}: not within {APPEARS_WITHIN:?}; the page says:\n{}",
                    text.as_str().unwrap_or_default()
                ));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Types into an element, as a keyboard does.
    pub(super) fn keys(&self, selector: &str, text: &str) -> Result<()> {
        let found = self.command("/element", &json!({"using": "css selector", "value": selector}))?;
        let id = found[ELEMENT].as_str().with_context(|| format!("{selector} is not there"))?;
        self.command(&format!("/element/{id}/value"), &json!({ "text": text })).map(drop)
    }

    /// Presses keys wherever the focus is.
    pub(super) fn press(&self, key: &str) -> Result<()> {
        let both = [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        self.command("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": both}]})).map(drop)
    }

    /// A command of the DevTools protocol.
    fn devtools(&self, name: &str, parameters: Value) -> Result<Value> {
        self.command("/goog/cdp/execute", &json!({"cmd": name, "params": parameters}))
    }

    /// Width in CSS pixels, and the colour scheme that the user prefers.
    pub(super) fn look(&self, width: u32, scheme: &str) -> Result<()> {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)?;
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.devtools("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// The whole page as a picture.
    pub(super) fn picture(&self, file: &Path) -> Result<()> {
        let taken = self.devtools("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}))?;
        let bytes = base64::decode_block(taken["data"].as_str().unwrap_or_default()).context("decode a picture")?;
        fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
    }

    /// Errors on the console since it was asked last: of scripts, of requests, and of what the policy has kept back.
    pub(super) fn console_errors(&self) -> Result<Vec<String>> {
        let lines = self.command("/se/log", &json!({"type": "browser"}))?;
        let errors = lines.as_array().into_iter().flatten().filter(|line| line["level"] == "SEVERE");
        Ok(errors.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// URLs that were asked for since it was asked last.
    pub(super) fn requests(&self) -> Result<Vec<String>> {
        let lines = self.command("/se/log", &json!({"type": "performance"}))?;
        let events = lines.as_array().into_iter().flatten().filter_map(|line| line["message"].as_str());
        let asked = events.filter_map(|event| {
            let event: Value = serde_json::from_str(event).ok()?;
            let event = &event["message"];
            let sent = event["method"] == "Network.requestWillBeSent";
            sent.then(|| event["params"]["request"]["url"].as_str().map(str::to_owned))?
        });
        Ok(asked.collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The browser ends with its session; without one it ends with the driver.
            _ = self.agent.delete(&self.session).call();
        }
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}
