//! The diagrams in `docs/states.md` are drawn from the transition tables, so they cannot drift.

use std::fmt::{Debug, Display, Write};
use std::path::Path;

use watchbell_core::{job, lifecycle, window};

/// A Mermaid state diagram of a transition function.
fn diagram<S: Copy + PartialEq + Display + Debug, E: Copy + Display, X>(
    states: &[S],
    events: &[E],
    next: impl Fn(S, E) -> Result<S, X>,
) -> String {
    let mut text = format!("```mermaid\nstateDiagram-v2\n    [*] --> {:?}\n", states[0]);
    for s in states {
        writeln!(text, "    {s:?}: {s}").unwrap();
    }
    for from in states {
        let mut last = true;
        for to in states {
            let names: Vec<_> = events
                .iter()
                .filter(|e| next(*from, **e).is_ok_and(|s| s == *to))
                .map(ToString::to_string)
                .collect();
            if !names.is_empty() {
                last = false;
                writeln!(text, "    {from:?} --> {to:?}: {}", names.join(", ")).unwrap();
            }
        }
        if last {
            writeln!(text, "    {from:?} --> [*]").unwrap();
        }
    }
    text + "```\n"
}

fn document() -> String {
    format!(
        "# States\n\n\
         Drawn from the transition tables in `watchbell-core` by a test, which fails when this page\n\
         differs from the code; `UPDATE_DOCS=1 cargo test -p watchbell-core` writes it anew.\n\n\
         ## Worker\n\n\
         What an operator asked for (RUNNING, PAUSED, STOPPED) is kept apart from the state below;\n\
         the supervisor brings the state to it one step at a time.\n\n{}\n\
         ## Window\n\n\
         One version of a window. A complete or abandoned one does not change: a correction is a\n\
         new version.\n\n{}\n\
         ## Job\n\n\
         `failed` is the dead letter: no attempt is left, or none can help. A job with attempts left\n\
         goes back to `queued`.\n\n{}",
        diagram(&lifecycle::State::ALL, &lifecycle::Event::ALL, lifecycle::next),
        diagram(&window::State::ALL, &window::Event::ALL, window::next),
        diagram(&job::State::ALL, &job::Event::ALL, job::next),
    )
}

#[test]
fn the_page_shows_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/states.md");
    let drawn = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == drawn,
        "docs/states.md differs: run UPDATE_DOCS=1 cargo test -p watchbell-core"
    );
}
