//! What the page is looked at with: a `millrace run` on a stack, with an admin API that wants tokens, and a load.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::issuer::{AUDIENCE, Issuer};
use crate::{
    cargo::Programs,
    demo::{
        child::{Child, Command},
        config,
        topic::Topic,
    },
    interrupt::Interrupt,
    stack::Stack,
};

const WITHIN: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);
const DRAIN: Duration = Duration::from_secs(30);

/// The parts of it.
pub(super) struct Rig<'s> {
    pub(super) issuer: Issuer,
    pub(super) port: u16,
    folder: PathBuf,
    config: PathBuf,
    stack: &'s Stack,
    programs: &'s Programs,
    interrupt: Interrupt,
}

impl<'s> Rig<'s> {
    /// Makes tables, topics and reference data; nothing runs yet.
    ///
    /// # Errors
    /// If one of our programs fails, in its words.
    pub(super) fn prepare(
        folder: &Path,
        stack: &'s Stack,
        programs: &'s Programs,
        interrupt: Interrupt,
    ) -> Result<Self> {
        let issuer = Issuer::start()?;
        // Free now; who takes it meanwhile makes millrace fail in clear words.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("find a free port")?.port();
        let config = config::write(folder, stack.file(), &[Topic::Orders])?;
        let text = fs::read_to_string(&config).context("read the configuration")?;
        let admin = format!(
            "[admin]\nlisten = \"127.0.0.1:{port}\"\n[admin.jwt]\nissuer = \"{url}\"\njwks_url = \"{url}/keys\"\n\
             audience = \"{AUDIENCE}\"\n[admin.permissions]\nstatus_read = [\"viewer\"]\nqueries_read = [\"analyst\"]\n\n",
            url = issuer.url
        );
        fs::write(&config, admin + &text).context("write the configuration")?;
        let rig = Self { issuer, port, folder: folder.to_owned(), config, stack, programs, interrupt };
        let admin = &stack.file().admin;
        rig.millrace("migrate")
            .args(["--apply", "--user", &admin.user, "--password-file"])
            .arg(&admin.password_file)
            .run_quietly()?;
        rig.bench("reference").args(["--seed", "1", "--kind", "orders"]).run_quietly()?;
        Ok(rig)
    }

    /// Starts millrace and waits until it is ready.
    ///
    /// # Errors
    /// If it is not ready in time, with its log.
    pub(super) fn run(&self) -> Result<Child> {
        let child = self.millrace("run").start(&self.folder.join("millrace.log"))?;
        let token = self.issuer.token(&["viewer"])?;
        let ready = || self.ask("v1/status", Some(&token)).is_ok_and(|(_, status)| status["ready"] == true);
        self.until("millrace is ready", ready).with_context(|| child.log())?;
        Ok(child)
    }

    pub(super) fn stop(child: Child) -> Result<()> {
        child.stop(DRAIN)
    }

    /// Sends orders over more than an hour of event time, at a rate that lasts for some seconds.
    ///
    /// # Errors
    /// If the generator does not start.
    pub(super) fn load(&self, events: u32, rate: u32) -> Result<Child> {
        let mut generate = self.bench("generate");
        generate
            .args(["--kind", "orders", "--seed", "1", "--events", &events.to_string(), "--rate", &rate.to_string()])
            .args(["--span-months", "0.0017", "--duplicates", "0.05", "--poison", "0.002", "--compression", "none"])
            .arg("--manifest")
            .arg(self.folder.join("manifest.json"));
        generate.start(&self.folder.join("generate.log"))
    }

    /// Waits until the load is sent and every record of it is settled; the status by then.
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) fn until_settled(&self, mut load: Child, token: &str) -> Result<Value> {
        let begun = Instant::now();
        while !load.ended()? {
            self.wait(begun, "the load is sent")?;
        }
        let log = load.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let sent = lines.filter_map(|line| line["sent"].as_u64()).next_back().context("the generator tells nothing")?;
        loop {
            let (_, status) = self.ask("v1/status", Some(token))?;
            let topic = &status["topics"][0];
            let number = |name: &str| topic[name].as_u64().unwrap_or_default();
            let dead: u64 =
                topic["dead_letters"].as_object().into_iter().flatten().filter_map(|(_, one)| one.as_u64()).sum();
            if number("rows") + number("duplicates") + dead >= sent {
                return Ok(status);
            }
            self.wait(begun, "all that was sent has landed")?;
        }
    }

    /// What the admin API answers: HTTP status and JSON.
    ///
    /// # Errors
    /// If there is no answer, or none in JSON.
    pub(super) fn ask(&self, path: &str, token: Option<&str>) -> Result<(u16, Value)> {
        let (status, _, text) = self.get(path, token)?;
        Ok((status, serde_json::from_str(&text).with_context(|| format!("{path} answers no JSON"))?))
    }

    /// HTTP status, content security policy and body.
    ///
    /// # Errors
    /// If there is no answer.
    pub(super) fn get(&self, path: &str, token: Option<&str>) -> Result<(u16, String, String)> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(15)))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let mut request = agent.get(format!("{}{path}", self.url()));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().context("ask the admin API")?;
        let policy = response.headers().get("content-security-policy").and_then(|value| value.to_str().ok());
        let policy = policy.unwrap_or_default().to_owned();
        let body = response.body_mut().read_to_string().context("read its answer")?;
        Ok((response.status().as_u16(), policy, body))
    }

    /// Where the page is.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// # Errors
    /// If it does not become so in time.
    pub(super) fn until(&self, what: &str, is: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !is() {
            self.wait(begun, what)?;
        }
        Ok(())
    }

    fn wait(&self, begun: Instant, what: &str) -> Result<()> {
        self.interrupt.check()?;
        if begun.elapsed() > WITHIN {
            bail!("not within {WITHIN:?}: {what}");
        }
        thread::sleep(LOOK);
        Ok(())
    }

    fn millrace(&self, command: &str) -> Command {
        let mut program = Command::new(&self.programs.path("millrace"), self.interrupt.clone());
        program.arg(command).arg("--config").arg(&self.config);
        program
    }

    fn bench(&self, command: &str) -> Command {
        let mut program = Command::new(&self.programs.path("millrace-bench"), self.interrupt.clone());
        program.arg(command).arg("--stack").arg(self.stack.path());
        program
    }
}
