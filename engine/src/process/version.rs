//! What this binary was built from.

/// The release, as in `Cargo.toml`.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The git commit, abbreviated; `+changes` behind it marks a working tree that differed; `unknown` without
/// git.
pub const COMMIT: &str = env!("OSTRAKON_COMMIT");

/// The cargo features, separated by spaces, or `none`. Benchmarks refuse a binary that names `verify` here.
pub const FEATURES: &str = env!("OSTRAKON_FEATURES");

/// All of it in one line, as `ostrakon --version` prints it behind the name.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("OSTRAKON_COMMIT"),
    ", features: ",
    env!("OSTRAKON_FEATURES"),
    ")"
);
