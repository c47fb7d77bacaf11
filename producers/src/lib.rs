//! `EventPublisher`: what a service embeds to publish order events, or events of its own, to Kafka.
//!
//! What it promises, in this order:
//! - An event that [`EventPublisher::publish`] returned `Ok` for is in the topic, written once by this publisher
//!   (all in-sync replicas have it; retries by an idempotent session).
//! - An event that it returned an error for may or may not be there: sending it again is safe, because the consumer
//!   drops the second event with the same id, and equal keys meet in one partition.
//! - Every event gets an answer within the delivery timeout, also when the broker is gone.
//! - Nothing is dropped for want of room: a full queue makes the caller wait, without spinning.
//!
//! It never reads the topic, never creates it, and never logs an event or a password.
//!
//! ```no_run
//! use millrace_producers::{EventPublisher, PublisherConfig};
//! use millrace_schemas::OrderEvent;
//!
//! # async fn order_placed(event: OrderEvent) -> Result<(), Box<dyn std::error::Error>> {
//! let config = PublisherConfig::new("localhost:9092", "http://localhost:8081", "orders");
//! let publisher = EventPublisher::<OrderEvent>::connect(config).await?;
//!
//! // One event, and wait until it is safe:
//! let delivered = publisher.publish(&event).await?;
//! println!("partition {}, offset {}", delivered.partition, delivered.offset);
//!
//! // Many events: send without waiting, look at the answers later.
//! let answer = publisher.send(&event).await?;
//! answer.await?;
//!
//! publisher.close(std::time::Duration::from_secs(30)).await?;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod config;
mod delivery;
mod encode;
mod event;
mod publisher;
mod registry;
mod security;
mod session;
mod span;
mod telemetry;
mod trace;

pub use config::{Compression, InvalidConfig, PublisherConfig, Registry};
pub use delivery::{Cause, Delivered, DeliveryError, DeliveryFuture, PublishError};
pub use encode::{EncodeError, Encoder};
pub use event::Event;
pub use millrace_identity::Secret;
pub use publisher::{CloseError, ConnectError, EventPublisher};
pub use registry::{RegistryError, schema_id};
pub use security::{OAuth, Sasl, Security, Tls};
pub use telemetry::{DELIVERY_LATENCY, DELIVERY_LATENCY_BUCKETS, describe_metrics};
pub use trace::TraceParent;
