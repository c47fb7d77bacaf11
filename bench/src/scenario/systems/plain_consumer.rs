//! `millrace-plain-consumer`: rdkafka, apache-avro by serde and the clickhouse crate's rows, as a team writes it in an
//! afternoon. It neither remembers ids nor enriches.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Job, System};
use crate::scenario::child::{Child, program};

const STOPS_WITHIN: Duration = Duration::from_secs(40);

/// One or more processes of one group.
pub(crate) struct PlainConsumer {
    processes: Vec<Child>,
}

impl PlainConsumer {
    /// # Errors
    /// If the program cannot be started.
    pub(crate) fn start(job: &Job<'_>) -> Result<Self> {
        let stack = &job.world.stack;
        let mut processes = Vec::new();
        for number in 0..job.consumers {
            let mut command = Command::new(program("millrace-plain-consumer")?);
            command.args(["--brokers", &stack.kafka, "--topic", &job.source.topics.orders, "--group", &job.group]);
            command.args(["--registry", &stack.registry, "--clickhouse", &stack.clickhouse]);
            command.args(["--user", &stack.pipeline.user, "--password-file"]).arg(&stack.pipeline.password_file);
            command.args(["--database", &job.database.name, "--table", "orders"]);
            let log = job.world.file(&format!("{}.{number}.log", job.group));
            processes.push(Child::start(command, &log)?);
        }
        Ok(Self { processes })
    }
}

impl System for PlainConsumer {
    fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Child::pid).collect()
    }

    fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Child::check_running)
    }

    fn stop(self: Box<Self>) -> Result<()> {
        self.processes.into_iter().try_for_each(|child| child.stop(STOPS_WITHIN))
    }
}
