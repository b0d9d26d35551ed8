//! The arrows between crates point one way: read from the manifests, dev-dependencies included.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Which crates of ours each one may depend on; in tests also those after `|`.
const ARROWS: [(&str, &str); 15] = [
    ("core", ""),
    ("clock", "core"),
    ("db", "clock core | testkit"),
    ("store", "clock core db | testkit"),
    ("engine", "clock core | db store testkit"),
    ("exec", "clock core"),
    ("testkit", "clock core db"),
    ("api", "core clock"),
    ("server", "api clock core"),
    ("cli", "api clock core"),
    ("venues", "clock core"),
    ("market", "clock core db venues | store testkit"),
    ("scan", "clock core db venues | store testkit"),
    ("bench", "*"),
    ("app", "*"),
];

#[test]
fn the_arrows_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let allowed: BTreeMap<&str, &str> = ARROWS.into();
    let mut manifests = vec![("app".to_owned(), root.join("crates/app/Cargo.toml"))];
    if root.join("bench/Cargo.toml").exists() {
        manifests.push(("bench".to_owned(), root.join("bench/Cargo.toml")));
    }
    for layer in ["runtime", "control", "workloads"] {
        for entry in fs::read_dir(root.join("crates").join(layer)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            manifests.push((name, path.join("Cargo.toml")));
        }
    }
    let mut wrong = Vec::new();
    for (name, path) in manifests {
        let Some(arrows) = allowed.get(name.as_str()) else {
            wrong.push(format!("{name}: a crate that the list of arrows does not know"));
            continue;
        };
        if *arrows == "*" {
            continue;
        }
        let (always, in_tests) = arrows.split_once('|').unwrap_or((arrows, ""));
        let mut tests = false;
        for line in fs::read_to_string(&path).unwrap().lines() {
            if line.starts_with('[') {
                tests = line == "[dev-dependencies]";
            }
            let Some(other) = line.strip_prefix("watchbell-") else { continue };
            let other = other.split(['.', ' ', '=']).next().unwrap();
            let known = |list: &str| list.split_whitespace().any(|n| n == other);
            if !(known(always) || tests && known(in_tests)) {
                wrong.push(format!("{}: `{line}` (from {name} to {other})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the architecture does not have:\n{}", wrong.join("\n"));
}
