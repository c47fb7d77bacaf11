//! Tokens for SASL OAUTHBEARER, handed to librdkafka.
//!
//! It asks for one when a client is made, once 80 % of a token's life are over, and ten seconds after it got none. It asks
//! whoever polls the client, and that thread waits meanwhile.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use millrace_identity::Tokens;
use rdkafka::{
    client::OAuthToken,
    consumer::{BaseConsumer, ConsumerContext},
};

use crate::config::{Kafka, Sasl};

const POLL: Duration = Duration::from_millis(50);
const POLLS: usize = 3;

/// Where the clients of a configuration get their tokens, if they need any. The same for the same source.
///
/// # Errors
/// The files for TLS cannot be used.
pub fn tokens(kafka: &Kafka) -> Result<Option<Arc<Tokens>>> {
    let Some(Sasl::Token(source)) = &kafka.sasl else { return Ok(None) };
    millrace_identity::tokens(source).map(Some)
}

/// Serves the question of a consumer for a token, if it needs any and one waits, as it does from the moment that the consumer
/// is made: so it can be asked things without being polled all the time.
pub fn serve<C: ConsumerContext>(consumer: &BaseConsumer<C>, tokens: Option<&Arc<Tokens>>) {
    // An error that is told meanwhile ends a poll early.
    let mut polls = 0..POLLS;
    while tokens.is_some() && polls.next().is_some() && consumer.poll(POLL).is_some() {}
}

/// What a client's callback answers.
///
/// # Errors
/// In words, for librdkafka to tell.
pub fn answer(tokens: Option<&Arc<Tokens>>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
    let tokens = tokens.ok_or("no source of tokens is configured: see [kafka.sasl.oauth]")?;
    match tokens.token() {
        Ok(token) => Ok(OAuthToken { token: token.text, principal_name: token.client_id, lifetime_ms: token.until_ms }),
        Err(error) => Err(format!("{error:#}").replace('\0', " ").into()),
    }
}
