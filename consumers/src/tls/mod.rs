//! Certificates: watched for their end, and handshakes that fail told in words. How they are read, and read again when they
//! change, is in `millrace-identity`. It sends nothing but the handshake of [`handshake::look`].

pub mod expiry;
pub mod handshake;
#[cfg(test)]
mod tests;

pub use millrace_identity::{CHECK_EVERY, Identity, Material, Renewed};
