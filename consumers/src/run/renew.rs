//! Certificates for Kafka that change while topics run. librdkafka reads them when a client is made and never again, so the
//! clients of every topic are made anew: the topic drains, leaves the group and joins it again, as on any restart.

use std::{sync::Arc, time::Duration};

use anyhow::Result;

use crate::{
    config::Kafka,
    kafka::try_client,
    tls::{CHECK_EVERY, Material, Renewed},
};

/// How Kafka is reached with the certificates that are there now.
pub(super) struct KafkaCertificates {
    renewed: Renewed<Arc<Kafka>>,
    used: Arc<Kafka>,
    /// Without files for TLS there is nothing to look at.
    watched: bool,
}

impl KafkaCertificates {
    /// # Errors
    /// The files cannot be used.
    pub(super) fn new(kafka: &Kafka) -> Result<Self> {
        let mut files = kafka.tls.files.clone();
        if !kafka.is_encrypted() {
            files = Default::default();
        }
        let watched = !files.is_empty();
        let plain = kafka.clone();
        let pin = move |material: &Material| {
            let mut kafka = plain.clone();
            if watched {
                // Every client of a topic gets what was read at once, however often the files change meanwhile.
                kafka.pinned = Some(Arc::new(material.clone()));
                try_client(&kafka)?;
            }
            Ok(Arc::new(kafka))
        };
        let renewed = Renewed::new("kafka.tls", &files, pin)?;
        Ok(Self { used: renewed.get(), renewed, watched })
    }

    /// With which clients are to be made.
    pub(super) fn kafka(&self) -> Arc<Kafka> {
        Arc::clone(&self.used)
    }

    /// Comes back when clients have to be made anew. It may be dropped and called again at any time.
    pub(super) async fn changed(&mut self) {
        if !self.watched {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(CHECK_EVERY + Duration::from_millis(1)).await;
            let now = self.renewed.get();
            if now.pinned != self.used.pinned {
                self.used = now;
                return;
            }
        }
    }
}
