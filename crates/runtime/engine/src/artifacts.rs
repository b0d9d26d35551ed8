//! Atomic publication of file sets.
//!
//! A cycle writes into a staged directory on the artifact file system. Publishing syncs each file,
//! writes a manifest with sizes and SHA-256, renames the directory into place and syncs its parent;
//! only then does the commit record it. A reader that sees `NAME/ID` sees all of it, and
//! `NAME/latest` is a link that is replaced by a rename. What goes away goes as it came: one rename
//! takes it out of sight, and only then are its files deleted. A crash between rename and commit
//! leaves a directory that no row names: [`Artifacts::reconcile`] removes it at the next start, and
//! reports rows whose directory is gone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use watchbell_core::port::{ArtifactRecord, Grant};
use watchbell_core::{Cause, CycleId, NewArtifact, Time};

const STAGE: &str = ".stage";
const MANIFEST: &str = "manifest.json";
const LATEST: &str = "latest";

/// The artifact root of a node.
#[derive(Debug, Clone)]
pub struct Artifacts {
    root: PathBuf,
}

/// Why files could not be published.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct ArtifactError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What a start found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Directories without a row, removed.
    pub removed: Vec<PathBuf>,
    /// Rows without a directory: their files are lost.
    pub missing: Vec<String>,
}

/// What tells the directories of one name and one instant apart: the cycle, or the token where
/// there is no cycle row.
fn origin(grant: &Grant) -> String {
    match (&grant.cause, grant.cycle) {
        (Cause::Job { id }, _) => format!("job{id}.{}", grant.token.0),
        (_, CycleId(0)) => format!("t{}", grant.token.0),
        (_, cycle) => cycle.to_string(),
    }
}

impl Artifacts {
    /// Uses `root`, which is created when something is first staged.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A fresh directory to write into.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn stage(&self) -> io::Result<PathBuf> {
        Ok(self.out_of_sight("cycle-")?.keep())
    }

    /// A fresh directory on the artifact file system that no reader looks into, and that the next
    /// start clears away should this process end before it does.
    fn out_of_sight(&self, prefix: &str) -> io::Result<TempDir> {
        let dir = self.root.join(STAGE);
        fs::create_dir_all(&dir)?;
        tempfile::Builder::new().prefix(prefix).tempdir_in(dir)
    }

    /// Takes a published directory away, from a reader's view at once and as a whole. The rename is
    /// synced before a file is deleted: no crash brings back a part of it.
    fn discard(&self, dir: &Path) -> io::Result<()> {
        let gone = self.out_of_sight("gone-")?;
        fs::rename(dir, gone.path())?;
        if let Some(home) = dir.parent() {
            sync_dir(home)?;
        }
        gone.close()
    }

    /// Moves a staged directory into place.
    ///
    /// # Errors
    /// When a file cannot be read, synced or moved; nothing is visible then.
    pub fn publish(
        &self,
        artifact: &NewArtifact,
        grant: &Grant,
        now: Time,
    ) -> Result<ArtifactRecord, ArtifactError> {
        let staged = &artifact.staged;
        let at = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| ArtifactError { what, path, source }
        };
        let mut files = Vec::new();
        collect(staged, staged, &mut files).map_err(at("read staged files in", staged))?;
        files.sort();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for relative in &files {
            let path = staged.join(relative);
            let (size, sha) = digest(&path).map_err(at("hash", &path))?;
            bytes += size;
            entries.push(serde_json::json!({
                "path": relative, "bytes": size, "sha256": sha,
            }));
        }
        let manifest = serde_json::json!({
            "name": artifact.name, "cycle": grant.cycle, "published_at": now, "files": entries,
        })
        .to_string();
        let manifest_path = staged.join(MANIFEST);
        write_synced(&manifest_path, manifest.as_bytes()).map_err(at("write", &manifest_path))?;
        sync_dir(staged).map_err(at("sync", staged))?;

        let home = self.root.join(&artifact.name);
        fs::create_dir_all(&home).map_err(at("create", &home))?;
        let wanted = artifact.directory.clone();
        let wanted = wanted.unwrap_or_else(|| format!("{}-{}", now.0, origin(grant)));
        let id = move_into(staged, &home, &wanted).map_err(at("move files into", &home))?;
        sync_dir(&home).map_err(at("sync", &home))?;
        Ok(ArtifactRecord {
            path: format!("{}/{id}", artifact.name),
            name: artifact.name.clone(),
            manifest_sha256: hex(&Sha256::digest(manifest.as_bytes())),
            bytes,
            files: files.len() as i64,
            published_at: now,
            expires_at: artifact.keep.map(|keep| now + keep),
        })
    }

    /// Points `NAME/latest` at a published artifact: after its commit.
    ///
    /// # Errors
    /// When the link cannot be replaced.
    pub fn point_latest(&self, record: &ArtifactRecord) -> Result<(), ArtifactError> {
        let home = self.root.join(&record.name);
        let fresh = home.join(".latest");
        let at = |source| ArtifactError { what: "link", path: home.join(LATEST), source };
        let id = record.path.rsplit('/').next().unwrap_or(&record.path);
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
            _ => {}
        }
        std::os::unix::fs::symlink(id, &fresh).map_err(at)?;
        fs::rename(&fresh, home.join(LATEST)).map_err(at)?;
        sync_dir(&home).map_err(at)
    }

    /// Takes back files whose commit was refused.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub fn withdraw(&self, record: &ArtifactRecord) -> io::Result<()> {
        self.discard(&self.root.join(&record.path))
    }

    /// Removes the directories whose records were pruned. One that is not here is another node's.
    ///
    /// # Errors
    /// When a directory cannot be removed; the next start tries again.
    pub fn remove(&self, paths: &[String]) -> io::Result<()> {
        for path in paths {
            let dir = self.root.join(path);
            if dir.is_dir() {
                self.discard(&dir)?;
            }
        }
        Ok(())
    }

    /// Removes what no row names, and reports rows without files. Only while nothing runs.
    ///
    /// # Errors
    /// When a directory cannot be read or removed.
    pub fn reconcile(&self, records: &[ArtifactRecord]) -> io::Result<Reconciled> {
        let known: BTreeSet<&str> = records.iter().map(|r| r.path.as_str()).collect();
        let mut found = Reconciled::default();
        for record in records {
            if !self.root.join(&record.path).join(MANIFEST).is_file() {
                found.missing.push(record.path.clone());
            }
        }
        if !self.root.is_dir() {
            return Ok(found);
        }
        for home in fs::read_dir(&self.root)? {
            let home = home?.path();
            let Some(name) = home.file_name().and_then(|n| n.to_str()).map(str::to_owned) else {
                continue;
            };
            for entry in fs::read_dir(&home)? {
                let path = entry?.path();
                let id = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let orphan = path.is_dir()
                    && !path.is_symlink()
                    && (name == STAGE || !known.contains(format!("{name}/{id}").as_str()));
                if orphan {
                    // What was staged has no reader.
                    if name == STAGE {
                        fs::remove_dir_all(&path)?;
                    } else {
                        self.discard(&path)?;
                    }
                    found.removed.push(path);
                }
            }
        }
        Ok(found)
    }
}

/// Moves a directory to the first free name of `wanted`, `wanted_2`, `wanted_3`, and says which. The
/// file system decides what is free: what is published is never empty, and no rename replaces it.
fn move_into(staged: &Path, home: &Path, wanted: &str) -> io::Result<String> {
    let mut id = wanted.to_owned();
    let mut number = 1;
    loop {
        match fs::rename(staged, home.join(&id)) {
            Ok(()) => return Ok(id),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                number += 1;
                id = format!("{wanted}_{number}");
            }
            Err(e) => return Err(e),
        }
    }
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
            sync_dir(&path)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.to_owned());
        }
    }
    Ok(())
}

fn digest(path: &Path) -> io::Result<(i64, String)> {
    let mut file = File::open(path)?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        size += n as i64;
    }
    file.sync_all()?;
    Ok((size, hex(&hash.finalize())))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use watchbell_core::{CycleInput, Millis, Token};

    use super::*;

    fn grant(cycle: i64, cause: Cause) -> Grant {
        Grant {
            token: Token(3),
            cycle: CycleId(cycle),
            cause,
            attempt: 1,
            max_attempts: 0,
            input: CycleInput::None,
            expires_at: Time(0),
        }
    }

    #[test]
    fn two_jobs_of_one_moment_publish_apart() {
        let all =
            [grant(7, Cause::Manual), grant(0, Cause::Manual), grant(0, Cause::Job { id: 9 })];
        assert_eq!(all.each_ref().map(origin), ["7", "t3", "job9.3"]);
    }

    #[test]
    fn published_files_are_whole_and_orphans_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(root.path());
        let staged = artifacts.stage().unwrap();
        fs::create_dir(staged.join("sub")).unwrap();
        fs::write(staged.join("sub/a.txt"), "hello").unwrap();
        let new = NewArtifact::new("model", staged);
        let kept = artifacts.publish(&new, &grant(7, Cause::Manual), Time(1_000)).unwrap();
        artifacts.point_latest(&kept).unwrap();
        assert_eq!((kept.bytes, kept.files), (5, 1));
        let read = fs::read_to_string(root.path().join("model/latest/sub/a.txt")).unwrap();
        assert_eq!(read, "hello");

        // A crash after the rename and before the commit, and one while staging.
        let staged = artifacts.stage().unwrap();
        let new = NewArtifact::new("model", staged);
        let lost = artifacts.publish(&new, &grant(8, Cause::Manual), Time(2_000)).unwrap();
        artifacts.stage().unwrap();
        let found = artifacts.reconcile(std::slice::from_ref(&kept)).unwrap();
        assert_eq!(found.removed.len(), 2);
        assert!(found.missing.is_empty());
        assert!(!root.path().join(&lost.path).exists());
        assert!(root.path().join(&kept.path).exists());
        let found = artifacts.reconcile(&[kept, lost.clone()]).unwrap();
        assert_eq!(found.missing, [lost.path]);
    }

    #[test]
    fn a_reader_finds_all_of_an_artifact_or_none_while_it_goes_away() {
        const FILES: usize = 200;
        let root = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(root.path());
        let publish = |cycle| {
            let staged = artifacts.stage().unwrap();
            for n in 0..FILES {
                fs::write(staged.join(n.to_string()), "").unwrap();
            }
            let new = NewArtifact::new("model", staged);
            artifacts.publish(&new, &grant(cycle, Cause::Manual), Time(cycle)).unwrap()
        };
        let records: Vec<ArtifactRecord> = (1..=9).map(publish).collect();
        let dirs: Vec<PathBuf> = records.iter().map(|r| root.path().join(&r.path)).collect();
        let count =
            |dir: &Path| fs::read_dir(dir).map(|files| files.filter_map(Result::ok).count());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for dir in &dirs {
                    // What was opened before it went may end early: a path that is still there may not.
                    while let Ok(files) = count(dir) {
                        assert!(files == FILES + 1 || !dir.exists(), "{files} files");
                    }
                }
            });
            let [one, two, rest @ ..] = &records[..] else { unreachable!("there are nine") };
            artifacts.withdraw(one).unwrap();
            artifacts.remove(std::slice::from_ref(&two.path)).unwrap();
            assert_eq!(artifacts.reconcile(&[]).unwrap().removed.len(), rest.len());
            reader.join().unwrap();
        });
        assert_eq!(count(&root.path().join(STAGE)).unwrap(), 0);
    }

    #[test]
    fn a_directory_may_be_named_and_none_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(root.path());
        let publish = |text: &str| {
            let staged = artifacts.stage().unwrap();
            fs::write(staged.join("a.csv"), text).unwrap();
            let new = NewArtifact::new("signals", staged)
                .directory("20250907_111513")
                .keep(Millis::from_days(1));
            artifacts.publish(&new, &grant(1, Cause::Manual), Time(0)).unwrap()
        };
        let records = ["one", "two", "three"].map(publish);
        let paths = records.each_ref().map(|r| r.path.as_str());
        let expected = ["", "_2", "_3"].map(|s| format!("signals/20250907_111513{s}"));
        assert_eq!(paths, expected.each_ref().map(String::as_str));
        let first = fs::read_to_string(root.path().join(&records[0].path).join("a.csv")).unwrap();
        assert_eq!((first.as_str(), records[0].expires_at), ("one", Some(Time(86_400_000))));
        // Another node's is no error.
        artifacts.remove(&[records[0].path.clone(), "signals/elsewhere".into()]).unwrap();
        assert!(!root.path().join(&records[0].path).exists());
        assert!(root.path().join(&records[1].path).exists());
    }
}
