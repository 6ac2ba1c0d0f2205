//! [`Failure`]: how a command ends when it does not end well, and the exit code that goes with it.

use ir_engine::error::Error;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be done; one sentence that says what to do.
    Run(String),
    /// The command line asks for what does not exist; one sentence.
    Usage(String),
    /// Whoever read the output is gone. Not worth a word.
    Quiet,
    /// Ctrl-C.
    Interrupted,
}

/// A result with a [`Failure`].
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this sentence.
    pub(crate) fn run(what: impl Into<String>) -> Failure {
        Failure::Run(what.into())
    }

    /// A wrong command line, with this sentence.
    pub(crate) fn usage(what: impl Into<String>) -> Failure {
        Failure::Usage(what.into())
    }

    /// What to print, if anything.
    pub(crate) fn sentence(&self) -> Option<&str> {
        match self {
            Failure::Run(what) | Failure::Usage(what) => Some(what),
            Failure::Quiet | Failure::Interrupted => None,
        }
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Run(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Quiet => 0,
            Failure::Interrupted => 130,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Run(error.to_string())
    }
}

impl From<ir_store::Error> for Failure {
    fn from(error: ir_store::Error) -> Failure {
        match error.kind {
            ir_store::Kind::Name | ir_store::Kind::NotFound => Failure::Usage(error.what),
            ir_store::Kind::Cancelled => Failure::Interrupted,
            _ => Failure::Run(error.what),
        }
    }
}

/// Errors of writing to standard output.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::Quiet,
            _ => Failure::Run(format!("cannot write to standard output: {error}")),
        }
    }
}
