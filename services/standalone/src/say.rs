//! What commands say beside their output.

use std::process::ExitCode;

/// How it went, in a line.
#[allow(clippy::print_stderr, reason = "the summary of a command, beside its output")]
pub(crate) fn summary(text: &str) {
    eprintln!("{text}");
}

/// Says why a command does nothing.
pub(crate) fn refuse(reason: &str) -> ExitCode {
    summary(reason);
    ExitCode::from(2)
}
