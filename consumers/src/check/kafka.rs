//! Looks at Kafka: brokers, topics, what compaction is set to, and the consumer group. It joins no group.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use millrace_identity::Tokens;
use rdkafka::{
    ClientConfig, ClientContext, TopicPartitionList,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::{DefaultClientContext, OAuthToken},
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::{count, report::Part};
use crate::{
    config::{Config, Kafka, Sasl},
    kafka::{explain::explain, oauth},
    tls::Material,
};

/// More than a client writes while it fails to connect.
const LOG_LINES: usize = 32;
/// How long brokers are asked before it is looked whether they have refused.
const SLICE: Duration = Duration::from_millis(500);
/// After so many looks a refusal counts.
const REFUSALS: usize = 3;

/// Keeps the last reason that librdkafka logged for a connection that failed; its calls themselves say only that it did.
#[derive(Clone)]
struct LastReason {
    last: Arc<Mutex<Option<String>>>,
    /// What brokers refused, which the end of the connection would hide.
    refused: Arc<Mutex<Option<String>>>,
    tokens: Option<Arc<Tokens>>,
}

impl ClientContext for LastReason {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::answer(self.tokens.as_ref())
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            // `[thrd:broker]: broker: Connect to … failed: Connection refused (after 0ms in state CONNECT)`
            let reason = message.splitn(3, ": ").last().unwrap_or(message);
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{Authentication, SSL, SaslAuthenticationFailed};
        if matches!(error.rdkafka_error_code(), Some(Authentication | SaslAuthenticationFailed | SSL)) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for LastReason {}

impl LastReason {
    fn of(kafka: &Kafka) -> Result<Self, String> {
        let tokens = oauth::tokens(kafka).map_err(|error| format!("{error:#}"))?;
        Ok(Self { last: Arc::default(), refused: Arc::default(), tokens })
    }

    fn is_refused(&self) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn text(&self) -> Option<String> {
        let held = |reason: &Mutex<Option<String>>| reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        held(&self.refused).or_else(|| held(&self.last))
    }
}

/// A topic that must exist.
struct Wanted<'a> {
    name: &'a str,
    role: String,
    compacted: bool,
}

/// Whether librdkafka takes the properties.
pub(super) fn properties(part: &mut Part, kafka: &Kafka) {
    if let Err(error) = client_config(kafka).create_native_config() {
        let text = match error {
            // The value is left out: it may be a secret.
            KafkaError::ClientConfig(_, reason, name, _) => format!("kafka.properties.\"{name}\": {reason}"),
            other => other.to_string(),
        };
        part.bad(text);
    }
}

pub(super) async fn check(config: &Config, timeout: Duration) -> Part {
    let mut wanted = Vec::new();
    for topic in &config.topics {
        let name = &topic.spec.topic;
        wanted.push(Wanted { name, role: "events".to_owned(), compacted: false });
        wanted.push(Wanted {
            name: &topic.dead_letter_topic,
            role: format!("dead letters of {name}"),
            compacted: false,
        });
        for lookup in &topic.spec.lookups {
            if !wanted.iter().any(|other: &Wanted<'_>| other.name == lookup.topic) {
                let role = format!("lookup {} of {name}", lookup.name);
                wanted.push(Wanted { name: &lookup.topic, role, compacted: true });
            }
        }
    }
    let kafka = config.kafka.clone();
    let names: Vec<String> = wanted.iter().map(|wanted| wanted.name.to_owned()).collect();
    let groups = groups(config);
    let looked = tokio::task::spawn_blocking(move || look(&kafka, &names, &groups, timeout)).await;
    let mut part = Part::new("kafka");
    match looked {
        Err(error) => part.bad(format!("the check itself failed: {error}")),
        Ok(Err(problem)) => {
            part.bad(problem);
            part.skipped(format!("{} not looked at", count(wanted.len(), "topic")));
        }
        Ok(Ok(seen)) => {
            part.good(format!("{} answers, {}", config.kafka.bootstrap_servers, count(seen.brokers, "broker")));
            let mut exist = Vec::new();
            for (wanted, partitions) in wanted.iter().zip(seen.partitions) {
                match partitions {
                    Ok(0) => part.bad(missing(wanted)),
                    Ok(partitions) => {
                        part.good(format!(
                            "topic {} ({}): {}",
                            wanted.name,
                            wanted.role,
                            count(partitions, "partition")
                        ));
                        exist.push(wanted);
                    }
                    Err(problem) => part.bad(format!("topic {} ({}): {problem}", wanted.name, wanted.role)),
                }
            }
            for (group, answer) in seen.groups {
                match answer {
                    Ok(()) => part.good(format!("group {group} may be used")),
                    Err(problem) => part.bad(format!("group {group}: {problem}")),
                }
            }
            let compacted = exist.into_iter().filter(|wanted| wanted.compacted).collect::<Vec<_>>();
            compaction(&mut part, &config.kafka, &compacted, timeout).await;
        }
    }
    part
}

/// The groups as which topics are read, with these topics.
fn groups(config: &Config) -> Groups {
    let mut groups = Groups::new();
    for topic in &config.topics {
        groups.entry(topic.kafka(&config.kafka).group_id).or_default().insert(topic.spec.topic.clone());
    }
    groups
}

fn missing(wanted: &Wanted<'_>) -> String {
    let compact = if wanted.compacted { " --config cleanup.policy=compact" } else { "" };
    format!(
        "topic {name} ({role}) does not exist: make it with `kafka-topics.sh --create --topic {name}{compact}`, or correct the name",
        name = wanted.name,
        role = wanted.role
    )
}

type Groups = BTreeMap<String, BTreeSet<String>>;

struct Seen {
    brokers: usize,
    partitions: Vec<Result<usize, String>>,
    groups: Vec<(String, Result<(), String>)>,
}

fn look(kafka: &Kafka, topics: &[String], groups: &Groups, timeout: Duration) -> Result<Seen, String> {
    if kafka.is_encrypted() {
        Material::read("kafka.tls", &kafka.tls.files).map_err(|error| format!("{error:#}"))?;
    }
    let reason = LastReason::of(kafka)?;
    let first = groups.keys().next().unwrap_or(&kafka.group_id);
    let consumer = consumer_of(kafka, first, &reason)?;
    let until = Instant::now() + timeout;
    let mut refusals = 0;
    let metadata = loop {
        let left = until.saturating_duration_since(Instant::now());
        let metadata = consumer.fetch_metadata(topics.first().map(String::as_str), left.min(SLICE));
        if metadata.is_ok() {
            break metadata;
        }
        // Log lines wait in the queue of events until somebody polls, one at a time.
        for _ in 0..LOG_LINES {
            consumer.poll(Duration::from_millis(1));
        }
        refusals += usize::from(reason.is_refused());
        // Another broker may let us in, but not any longer.
        if left.is_zero() || refusals == REFUSALS {
            break metadata;
        }
    };
    let metadata = metadata.map_err(|error| {
        if let Some(words) = explain(kafka, &reason.text().unwrap_or_default(), timeout) {
            return words;
        }
        format!(
            "no broker at {} answered within {} s ({}): is it running, and are kafka.bootstrap_servers and kafka.security_protocol right?",
            kafka.bootstrap_servers,
            timeout.as_secs_f64(),
            reason.text().unwrap_or_else(|| error.to_string())
        )
    })?;
    let partitions = topics
        .iter()
        .map(|topic| {
            let metadata = consumer.fetch_metadata(Some(topic), timeout).map_err(|error| error.to_string())?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            match found.map(|found| (found.error(), found.partitions().len())) {
                None => Ok(0),
                Some((None, partitions)) => Ok(partitions),
                Some((Some(error), partitions)) => match RDKafkaErrorCode::from(error) {
                    RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(0),
                    RDKafkaErrorCode::TopicAuthorizationFailed => {
                        Err("this user may not see it; grant it DESCRIBE and READ, and WRITE on dead letters"
                            .to_owned())
                    }
                    error => Err(format!("{error} ({partitions} partitions)")),
                },
            }
        })
        .collect();
    let ask = |(group, events): (&String, &BTreeSet<String>)| {
        let answer = if group == first {
            may_use(&consumer, events, timeout)
        } else {
            consumer_of(kafka, group, &reason).and_then(|consumer| may_use(&consumer, events, timeout))
        };
        (group.clone(), answer)
    };
    Ok(Seen { brokers: metadata.brokers().len(), partitions, groups: groups.iter().map(ask).collect() })
}

fn consumer_of(kafka: &Kafka, group: &str, reason: &LastReason) -> Result<BaseConsumer<LastReason>, String> {
    let consumer: BaseConsumer<LastReason> = client_config(kafka)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set_log_level(RDKafkaLogLevel::Info)
        .create_with_context(reason.clone())
        .map_err(|error| format!("librdkafka refuses the configuration: {error}"))?;
    oauth::serve(&consumer, reason.tokens.as_ref());
    Ok(consumer)
}

/// Asks for committed offsets, which tells whether the group's coordinator answers and lets this user in.
fn may_use(consumer: &BaseConsumer<LastReason>, events: &BTreeSet<String>, timeout: Duration) -> Result<(), String> {
    let mut list = TopicPartitionList::new();
    for topic in events {
        list.add_partition(topic, 0);
    }
    match consumer.committed_offsets(list, timeout).map_err(|error| error.rdkafka_error_code()) {
        Ok(_) | Err(Some(RDKafkaErrorCode::UnknownTopicOrPartition)) => Ok(()),
        Err(Some(RDKafkaErrorCode::GroupAuthorizationFailed)) => {
            Err("this user may not use it; grant it READ on the group".to_owned())
        }
        Err(code) => {
            let code = code.map_or_else(|| "no reason given".to_owned(), |code| code.to_string());
            Err(format!("its committed offsets cannot be read: {code}"))
        }
    }
}

async fn compaction(part: &mut Part, kafka: &Kafka, topics: &[&Wanted<'_>], timeout: Duration) {
    if topics.is_empty() {
        return;
    }
    if let Some(Sasl::Token(_)) = kafka.sasl {
        // rust-rdkafka never asks the admin client's callback for a token.
        return part.skipped("whether lookup topics are compacted is not asked with SASL OAUTHBEARER");
    }
    let admin: AdminClient<DefaultClientContext> = match client_config(kafka).create() {
        Ok(admin) => admin,
        Err(error) => return part.bad(format!("librdkafka refuses the configuration: {error}")),
    };
    let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic.name)).collect();
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let described = match admin.describe_configs(&resources, &options).await {
        Ok(described) => described,
        Err(error) => return part.skipped(format!("whether lookup topics are compacted could not be asked: {error}")),
    };
    for (topic, described) in topics.iter().zip(described) {
        match described {
            Err(error) => part.skipped(format!("topic {}: whether it is compacted is not told: {error}", topic.name)),
            Ok(described) => {
                let policy = described.get("cleanup.policy").and_then(|entry| entry.value.clone()).unwrap_or_default();
                if !policy.split(',').any(|policy| policy.trim() == "compact") {
                    part.bad(format!(
                        "topic {name} ({role}) has cleanup.policy={policy}: its records expire, and lookups miss; set it with `kafka-configs.sh --alter --topic {name} --add-config cleanup.policy=compact`",
                        name = topic.name,
                        role = topic.role
                    ));
                }
            }
        }
    }
}

fn client_config(kafka: &Kafka) -> ClientConfig {
    kafka.client_properties().into_iter().collect()
}
