//! Where log lines go: to standard error, for people on a terminal, as JSON where a machine reads it
//! (`ATOLL_LOG_FORMAT=json`). `ATOLL_LOG` filters, in the syntax of `RUST_LOG`; the default is `info`.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the subscriber; to be called once, first.
pub(crate) fn start() {
    let filter =
        EnvFilter::try_from_env("ATOLL_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var("ATOLL_LOG_FORMAT").is_ok_and(|f| f == "json") {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
}
