//! Runs a plan, statement by statement.

use std::time::Duration;

use anyhow::Result;
use clickhouse::error::Error;

use super::{Plan, Step, rewrite};
use crate::clickhouse::{client::within, errors::code};

/// `UNFINISHED`: the ALTER is in Keeper, and a replica that is away has not followed yet.
const UNFINISHED: u32 = 341;
/// `CANNOT_ASSIGN_ALTER`: this replica has not followed an earlier one yet.
const CANNOT_ASSIGN_ALTER: u32 = 517;
/// How often an ALTER is sent that comes too soon after another one, and after which pause.
const SENT_AT_MOST: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

impl Plan {
    /// Runs the steps in order and tells each that is done, and how far the server is where it rewrites parts; returns how
    /// many.
    ///
    /// # Errors
    /// The first step that fails; those before it stay done, and a second run goes on from there.
    pub async fn apply(&self, tell: impl Fn(&str) -> Result<()>) -> Result<usize> {
        for table in &self.rewriting {
            rewrite::finish(&self.client, &self.settings, table, &tell).await?;
        }
        for step in &self.steps {
            self.run(step).await.map_err(|error| self.explain(error).context(step.what.clone()))?;
            tell(&format!("done: {}", step.what))?;
            if !step.makes {
                rewrite::finish(&self.client, &self.settings, &step.name, &tell).await?;
            }
        }
        Ok(self.steps.len())
    }

    async fn run(&self, step: &Step) -> Result<(), Error> {
        if step.makes || !self.replicated.contains(&step.name) {
            // The server does not hold the answer back until parts are rewritten: that is watched instead.
            return self.send(step, &[("alter_sync", "0")]).await;
        }
        // The replicas that are up have followed when it is answered, so that the next statement, or the next plan, is not made of
        // what was before.
        let settings = [("alter_sync", "2"), ("replication_wait_for_inactive_replica_timeout", "0")];
        let mut left = SENT_AT_MOST;
        loop {
            left -= 1;
            match self.send(step, &settings).await {
                Err(error) if left > 0 && code(&error) == Some(CANNOT_ASSIGN_ALTER) => tokio::time::sleep(PAUSE).await,
                sent => return self.taken(step, sent).await,
            }
        }
    }

    /// An ALTER of a replicated table is taken as soon as it is in Keeper; it may then be waited for in vain.
    async fn taken(&self, step: &Step, sent: Result<(), Error>) -> Result<(), Error> {
        match sent {
            Err(error) if code(&error) == Some(UNFINISHED) => Ok(()),
            // It rewrites parts, which is watched.
            Err(Error::TimedOut) if rewrite::parts_to_do(&self.client, &self.settings, &step.name).await?.is_some() => {
                Ok(())
            }
            sent => sent,
        }
    }

    async fn send(&self, step: &Step, settings: &[(&str, &str)]) -> Result<(), Error> {
        let statement = self.client.query_raw(&step.sql);
        let statement =
            settings.iter().fold(statement, |statement, (name, value)| statement.with_setting(*name, *value));
        within(self.settings.query_timeout, statement.execute()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{
        clickhouse::fake::Fake,
        config::{ClickHouse, example},
        migrate::{Engine, siblings::Siblings},
    };

    /// A plan that alters a table, for a server that answers ALTERs so.
    async fn altering(
        is_replicated: bool,
        answer: impl Fn() -> Result<String, u32> + Clone + Send + Sync + 'static,
    ) -> (Fake, Plan) {
        // Who may not see mutations waits for none.
        let fake = Fake::start(move |sql| if sql.starts_with("ALTER") { answer() } else { Err(497) }).await;
        let settings = ClickHouse { url: fake.url.clone(), ..example(|text| text).clickhouse };
        let mut plan = Plan::new(&settings, Engine::Plain, Siblings::default()).unwrap();
        plan.steps.push(Step::alter("t", "alter t".to_owned(), "ALTER TABLE t ADD COLUMN a Int8".to_owned()));
        if is_replicated {
            plan.replicated.insert("t".to_owned());
        }
        (fake, plan)
    }

    fn alters(fake: &Fake) -> Vec<String> {
        fake.asked().into_iter().filter(|asked| asked.starts_with("ALTER")).collect()
    }

    #[tokio::test]
    async fn an_alter_that_comes_too_soon_after_another_one_is_sent_again() {
        let before = std::sync::Arc::new(AtomicU32::new(0));
        let (fake, plan) = altering(true, move || match before.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(CANNOT_ASSIGN_ALTER),
            _ => Ok(String::new()),
        })
        .await;
        assert_eq!(plan.apply(|_| Ok(())).await.unwrap(), 1);
        let sent = alters(&fake);
        assert_eq!(sent.len(), 3);
        assert!(sent.iter().all(|sent| sent.contains("alter_sync=2")), "{sent:?}");
    }

    #[tokio::test]
    async fn a_replica_that_is_away_holds_no_alter_up_and_what_is_refused_stays_refused() {
        let (_fake, plan) = altering(true, || Err(UNFINISHED)).await;
        assert_eq!(plan.apply(|_| Ok(())).await.unwrap(), 1);
        let (fake, plan) = altering(true, || Err(122)).await;
        let error = plan.apply(|_| Ok(())).await.unwrap_err();
        assert_eq!((error.downcast_ref::<Error>().and_then(code), alters(&fake).len()), (Some(122), 1));
    }

    #[tokio::test]
    async fn a_table_on_one_server_is_altered_without_waiting_for_others() {
        let (fake, plan) = altering(false, || Ok(String::new())).await;
        plan.apply(|_| Ok(())).await.unwrap();
        assert!(alters(&fake)[0].contains("alter_sync=0"), "{:?}", alters(&fake));
    }
}
