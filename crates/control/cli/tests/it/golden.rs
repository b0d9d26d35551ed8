//! Golden files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

static USED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Compares text with a golden file, or writes the file.
pub(crate) fn check(name: &str, text: &str) {
    assert!(USED.lock().unwrap().insert(name.to_owned()), "{name} is checked twice");
    for line in text.lines() {
        assert_eq!(line.trim_end(), line, "a line of {name} ends in space");
    }
    let path = folder().join(name);
    if updating() {
        fs::write(&path, text).unwrap();
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{name} differs (UPDATE_GOLDEN=1 accepts):\n--- golden\n{golden}\n--- now\n{text}"
    );
}

fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| v == "1")
}

/// Fails when there are files that nothing was compared with.
pub(crate) fn no_leftovers(expected: &[String]) {
    if updating() {
        // Other tests are still writing them.
        return;
    }
    let expected: BTreeSet<String> = expected.iter().cloned().collect();
    let found = fs::read_dir(folder()).unwrap();
    let found: BTreeSet<String> =
        found.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected, "files under tests/golden");
}
