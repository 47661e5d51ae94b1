//! The content of a file, given as it is or by the file's name.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::instance::escaped;

/// A certificate, a key or a password: itself, or the file that holds it.
///
/// A file is read again for each connection and each login, so that one that is replaced takes effect without a restart. A string
/// or bytes are the content itself, and a path names a file.
#[derive(Clone)]
#[non_exhaustive]
pub enum Content {
    /// The content itself.
    Inline(Vec<u8>),
    /// The file that holds it.
    File(PathBuf),
}

impl Content {
    /// Reads it, or tells why that can't be done.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Inline(content) => Ok(content.clone()),
            Self::File(file) => std::fs::read(file)
                .map_err(|error| format!("{} can't be read: {error}", escaped(&file.to_string_lossy()))),
        }
    }

    /// Reads a password: a line that ends is one without its end, as editors and `echo` write it.
    pub(super) fn read_password(&self) -> Result<String, String> {
        let text = String::from_utf8(self.read()?).map_err(|_| "the password is not UTF-8".to_owned())?;
        Ok(match self {
            Self::Inline(_) => text,
            Self::File(_) => text.trim_end_matches(['\r', '\n']).to_owned(),
        })
    }
}

impl From<Vec<u8>> for Content {
    fn from(content: Vec<u8>) -> Self {
        Self::Inline(content)
    }
}

impl From<String> for Content {
    fn from(content: String) -> Self {
        Self::Inline(content.into_bytes())
    }
}

impl From<&str> for Content {
    fn from(content: &str) -> Self {
        Self::Inline(content.as_bytes().to_vec())
    }
}

impl From<PathBuf> for Content {
    fn from(file: PathBuf) -> Self {
        Self::File(file)
    }
}

impl From<&Path> for Content {
    fn from(file: &Path) -> Self {
        Self::File(file.to_owned())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may be a secret.
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
        }
    }
}
