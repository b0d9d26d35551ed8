//! Whether published files are what their records say.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};
use watchbell_core::port::ArtifactRecord;

/// Where the engine prepares files before they are published.
const STAGE: &str = ".stage";
const MANIFEST: &str = "manifest.json";

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Records whose files are all there, with the sizes of their manifest.
    pub(super) whole: usize,
    /// Records without a directory.
    pub(super) absent: Vec<String>,
    /// Records whose files are not as published, with what is wrong.
    pub(super) damaged: Vec<String>,
    /// Directories that no record names.
    pub(super) unknown: Vec<String>,
}

/// Compares the records with what is below `root`.
pub(super) fn verify(root: &Path, records: &[ArtifactRecord]) -> io::Result<Found> {
    let mut found = Found::default();
    for record in records {
        let dir = root.join(&record.path);
        match fs::read(dir.join(MANIFEST)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => found.absent.push(record.path.clone()),
            Err(e) => return Err(e),
            Ok(manifest) => match damage(&dir, record, &manifest) {
                None => found.whole += 1,
                Some(what) => found.damaged.push(format!("{}: {what}", record.path)),
            },
        }
    }
    let known: BTreeSet<&str> = records.iter().map(|r| r.path.as_str()).collect();
    for home in subdirectories(root)? {
        if home == STAGE {
            continue;
        }
        for id in subdirectories(&root.join(&home))? {
            let path = format!("{home}/{id}");
            if !known.contains(path.as_str()) {
                found.unknown.push(path);
            }
        }
    }
    Ok(found)
}

fn damage(dir: &Path, record: &ArtifactRecord, manifest: &[u8]) -> Option<String> {
    let sha256: String = Sha256::digest(manifest).iter().map(|b| format!("{b:02x}")).collect();
    if sha256 != record.manifest_sha256 {
        return Some("its manifest is not the one that was published".to_owned());
    }
    let manifest: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    manifest["files"].as_array()?.iter().find_map(|file| {
        let (path, bytes) = (file["path"].as_str()?, file["bytes"].as_u64()?);
        match fs::metadata(dir.join(path)) {
            Ok(there) if there.len() == bytes => None,
            Ok(there) => Some(format!("{path} has {} bytes, not {bytes}", there.len())),
            Err(e) => Some(format!("{path}: {e}")),
        }
    })
}

/// Names of the real directories in `dir`, sorted; none where it does not exist.
fn subdirectories(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        // A link such as `latest` is not followed.
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use watchbell_core::Time;

    use super::*;

    fn record(root: &Path, id: &str, content: &str) -> ArtifactRecord {
        let path = format!("model/{id}");
        let dir = root.join(&path);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("a.bin"), content).unwrap();
        let files = serde_json::json!([{ "path": "a.bin", "bytes": content.len() }]);
        let manifest = serde_json::json!({ "files": files }).to_string();
        fs::write(dir.join(MANIFEST), &manifest).unwrap();
        let sha = Sha256::digest(manifest.as_bytes());
        ArtifactRecord {
            name: "model".into(),
            path,
            manifest_sha256: sha.iter().map(|b| format!("{b:02x}")).collect(),
            bytes: content.len() as i64,
            files: 1,
            published_at: Time(0),
            expires_at: None,
        }
    }

    #[test]
    fn every_way_in_which_files_and_records_can_differ_is_told() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(verify(&root.join("none"), &[]).unwrap(), Found::default());
        let records: Vec<ArtifactRecord> =
            ["1", "2", "3", "4"].map(|id| record(root, id, "hello")).into();
        record(root, "5", "nobody's");
        fs::create_dir_all(root.join(STAGE).join("cycle-1")).unwrap();
        std::os::unix::fs::symlink("4", root.join("model/latest")).unwrap();
        fs::write(root.join("model/1/a.bin"), "hell").unwrap();
        fs::write(root.join("model/2").join(MANIFEST), "{}").unwrap();
        fs::remove_dir_all(root.join("model/3")).unwrap();
        let found = verify(root, &records).unwrap();
        assert_eq!((found.whole, &found.absent[..]), (1, &["model/3".to_owned()][..]));
        assert_eq!(found.unknown, ["model/5"]);
        assert!(found.damaged[0].contains("a.bin has 4 bytes, not 5"), "{:?}", found.damaged);
        assert!(found.damaged[1].contains("manifest"), "{:?}", found.damaged);
    }
}
