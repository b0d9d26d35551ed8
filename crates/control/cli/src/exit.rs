//! Exit codes that scripts can trust.

use watchbell_api::ControlError;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed, or what it checked is not as it should be.
    Failed = 1,
    /// The command line makes no sense, or what it was given to send.
    Usage = 2,
    /// What it names does not exist.
    NotFound = 3,
    /// The present state forbids it.
    Refused = 4,
    /// The store, or a node that is needed, cannot be reached.
    Unavailable = 5,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&ControlError> for Exit {
    fn from(error: &ControlError) -> Self {
        match error {
            ControlError::Internal(_) => Self::Failed,
            ControlError::Invalid(_) | ControlError::BadInput { .. } => Self::Usage,
            ControlError::NotFound { .. } => Self::NotFound,
            ControlError::Conflict(_) => Self::Refused,
            ControlError::Unavailable(_) => Self::Unavailable,
        }
    }
}

/// What `--help` says about them.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed, or what was checked is not as it should be
  2  the command line makes no sense, or what it sends is refused as wrong
  3  what it names does not exist
  4  refused: the present state forbids it
  5  the store, or a node that is needed, cannot be reached";
