//! Nothing: an example that is built along lets `cargo xtask` build programs with the features that the tests have.
