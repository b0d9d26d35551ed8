//! How a command finds the node that serves a data directory: `node.json` in it.
//!
//! A node writes the file once it answers and removes it when it stops. A node that was killed
//! leaves it behind, so the file alone proves nothing: [`connect`] asks the address in it, and only
//! a node of the same boot counts. Another process on the port, or a later boot, is not mistaken
//! for it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, SessionId, Time};

use crate::client::{DEFAULT_TIMEOUT, HttpControl};
use crate::control::Control;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "node.json";

/// What a running node says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Its process.
    pub pid: u32,
    /// Where it answers.
    pub url: String,
    /// Its boot.
    pub session: SessionId,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Time,
}

/// The file could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}")]
pub struct DiscoveryError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl NodeFile {
    /// Writes the file, whole or not at all: a reader sees the previous one or this one.
    ///
    /// # Errors
    /// When the data directory cannot be written.
    pub fn write(&self, data_dir: &Path) -> Result<(), DiscoveryError> {
        let path = data_dir.join(FILE_NAME);
        let fail = |source| DiscoveryError { verb: "write", path: path.clone(), source };
        let staged = data_dir.join(format!(".{FILE_NAME}.{}", self.pid));
        let text = serde_json::to_vec_pretty(self).map_err(|e| fail(e.into()))?;
        let publish = || {
            let mut file = File::create(&staged)?;
            file.write_all(&text)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&staged, &path)
        };
        publish().map_err(|e| {
            // The staged file is of no use to anyone; the first error is the one to report.
            drop(fs::remove_file(&staged));
            fail(e)
        })
    }

    /// Reads the file. `None` when there is none, or when it is not one of ours: then there is no
    /// node to be found either way.
    ///
    /// # Errors
    /// When the file exists and cannot be read.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, DiscoveryError> {
        let path = data_dir.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DiscoveryError { verb: "read", path, source }),
        }
    }

    /// Removes the file if it is still that of `session`: a node that stops must not hide the one
    /// that has taken its place.
    ///
    /// # Errors
    /// When the file exists and cannot be read or removed.
    pub fn remove(data_dir: &Path, session: &SessionId) -> Result<(), DiscoveryError> {
        if Self::read(data_dir)?.is_none_or(|f| f.session != *session) {
            return Ok(());
        }
        let path = data_dir.join(FILE_NAME);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(DiscoveryError { verb: "remove", path, source }),
            Ok(()) => Ok(()),
        }
    }
}

/// The node that serves `data_dir`, if one answers within `timeout`. A file left by a killed node
/// gives `None`.
pub async fn connect(data_dir: &Path, timeout: Millis) -> Option<HttpControl> {
    let file = NodeFile::read(data_dir).ok().flatten()?;
    let probe = HttpControl::new(&file.url, timeout).ok()?;
    let node = probe.node().await.ok()?;
    if node.session.as_ref() != Some(&file.session) {
        return None;
    }
    Some(probe.with_timeout(DEFAULT_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(session: &str) -> NodeFile {
        NodeFile {
            pid: 4711,
            // Port 9 (discard) answers nowhere.
            url: "http://127.0.0.1:9".into(),
            session: session.into(),
            version: "0.1.0".into(),
            started_at: Time(1_795_316_400_000),
        }
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NodeFile::read(dir.path()).unwrap(), None);
        file("a").write(dir.path()).unwrap();
        file("b").write(dir.path()).unwrap();
        assert_eq!(NodeFile::read(dir.path()).unwrap(), Some(file("b")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_its_own_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        file("new").write(dir.path()).unwrap();
        NodeFile::remove(dir.path(), &"old".into()).unwrap();
        assert!(NodeFile::read(dir.path()).unwrap().is_some());
        NodeFile::remove(dir.path(), &"new".into()).unwrap();
        NodeFile::remove(dir.path(), &"new".into()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_error_names_the_file_and_its_cause() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let error = file("a").write(&gone).unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
        assert!(error.to_string().ends_with("gone/node.json"), "{error}");
    }

    #[tokio::test]
    async fn a_stale_or_broken_file_is_no_node() {
        let dir = tempfile::tempdir().unwrap();
        let second = Millis::from_secs(1);
        assert!(connect(dir.path(), second).await.is_none());
        file("a").write(dir.path()).unwrap();
        assert!(connect(dir.path(), second).await.is_none());
        fs::write(dir.path().join(FILE_NAME), "{ half").unwrap();
        assert!(connect(dir.path(), second).await.is_none());
    }
}
