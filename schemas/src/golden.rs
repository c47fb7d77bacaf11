//! Golden examples.
