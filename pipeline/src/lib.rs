//! The deciding part of Millrace, pure: no tokio, no sockets, no clock, no environment.

pub mod spec;
