//! What is wrong with a configuration, and where: collected, so that one run reports all of it.
//!
//! A *problem* stops the start, a *warning* is told and lived with. Which of the two something is
//! gets decided where it is found.

use core::fmt;
use std::sync::Arc;

/// Where a directive stands: a file and a line, or the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file as it was named to us; [`Origin::COMMAND_LINE`] for arguments.
    pub file: Arc<str>,
    /// Counted from 1; 0 when there is no line to speak of.
    pub line: u32,
}

impl Origin {
    /// Stands in for a file name when a directive was given as `--option`.
    pub const COMMAND_LINE: &'static str = "command line";

    /// A line of a file.
    pub fn new(file: &Arc<str>, line: u32) -> Self {
        Self { file: Arc::clone(file), line }
    }
}

/// One remark about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as it was named to us.
    pub file: String,
    /// Counted from 1; 0 when the remark is about the whole.
    pub line: u32,
    /// One line of text: what is wrong and what to do.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.text)
        } else {
            write!(f, "{}:{}: {}", self.file, self.line, self.text)
        }
    }
}

/// A configuration that cannot be used. Displayed as one line per problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Never empty; in the order of the file as far as that is known.
    pub problems: Vec<Diagnostic>,
    /// What was only warned about.
    pub warnings: Vec<Diagnostic>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl core::error::Error for ConfigError {}

/// Gathers remarks while a configuration is read.
#[derive(Debug)]
pub(super) struct Problems {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// What remarks without a line are attributed to.
    whole: Arc<str>,
}

impl Problems {
    /// Nothing wrong so far with the configuration called `whole`.
    pub(super) fn new(whole: &str) -> Self {
        Self { errors: Vec::new(), warnings: Vec::new(), whole: Arc::from(whole) }
    }

    /// This cannot work.
    pub(super) fn error(&mut self, at: &Origin, text: impl Into<String>) {
        self.errors.push(diagnostic(at, text.into()));
    }

    /// This works, but not as somebody may think.
    pub(super) fn warn(&mut self, at: &Origin, text: impl Into<String>) {
        self.warnings.push(diagnostic(at, text.into()));
    }

    /// Something is missing that has no line.
    pub(super) fn error_whole(&mut self, text: impl Into<String>) {
        let at = Origin::new(&self.whole, 0);
        self.error(&at, text);
    }

    /// A warning that has no line.
    pub(super) fn warn_whole(&mut self, text: impl Into<String>) {
        let at = Origin::new(&self.whole, 0);
        self.warn(&at, text);
    }

    /// Whether the configuration is lost.
    pub(super) fn any(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The warnings, if there was no error.
    pub(super) fn finish(self) -> Result<Vec<Diagnostic>, ConfigError> {
        if self.errors.is_empty() {
            Ok(self.warnings)
        } else {
            Err(ConfigError { problems: self.errors, warnings: self.warnings })
        }
    }
}

fn diagnostic(at: &Origin, text: String) -> Diagnostic {
    Diagnostic { file: at.file.to_string(), line: at.line, text }
}
