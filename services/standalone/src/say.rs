//! What commands say beside their output.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

/// How it went, in a line.
#[allow(clippy::print_stderr, reason = "the summary of a command, beside its output")]
pub(crate) fn summary(text: &str) {
    eprintln!("{text}");
}

/// A line of its output. Who has seen enough and closed the pipe missed nothing.
pub(crate) fn print(line: &str) -> io::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Says why a command does nothing.
pub(crate) fn refuse(reason: &str) -> ExitCode {
    summary(reason);
    ExitCode::from(2)
}
