//! What each command prints for fixed data.

use serde::Serialize;
use serde::de::DeserializeOwned;
use watchbell_api::*;
use watchbell_cli::Exit;
use watchbell_cli::print::style::Style;
use watchbell_core::port::*;
use watchbell_core::{EventRecord, gate::Explanation};

use crate::fixture::{self, Fake};
use crate::{golden, typed, typed_with};

/// Commands, their exit codes, and the names of their golden files.
const COMMANDS: &[(&str, Exit, &str)] = &[
    ("status", Exit::Ok, "status"),
    ("worker list", Exit::Ok, "worker_list"),
    ("worker show market-sync", Exit::Ok, "worker_show_every"),
    ("worker show market-30m", Exit::Ok, "worker_show_window"),
    ("worker pause market-sync", Exit::Ok, "worker_pause"),
    ("worker restart market-sync market-3h --by grace", Exit::Ok, "worker_restart"),
    ("worker resume market-sync", Exit::Refused, "worker_resume_refused"),
    ("worker stop market-sync market-sink", Exit::NotFound, "worker_not_found"),
    ("run market-sync --once", Exit::Ok, "run"),
    ("run market-sync --dry-run", Exit::Ok, "run_dry"),
    ("run market-3h --force --window market-3h/2026-11-22T00:00:00Z", Exit::Failed, "run_failed"),
    ("schedule list", Exit::Ok, "schedule_list"),
    ("schedule status", Exit::Ok, "schedule_status"),
    ("schedule run market-sync", Exit::Ok, "schedule_run"),
    ("window list", Exit::Ok, "window_list"),
    ("window list --series none", Exit::Ok, "window_list_empty"),
    ("window show market-30m 2026-11-22T02:30:00Z", Exit::Ok, "window_show"),
    ("window show market-3h 2026-11-22", Exit::Ok, "window_show_failed"),
    ("window show market-3h 2026-11-23", Exit::NotFound, "window_not_found"),
    ("window verify market-30m 2026-11-22T02:30:00Z", Exit::Ok, "window_verify_same"),
    ("window verify", Exit::Failed, "window_verify"),
    ("window backfill", Exit::Ok, "backfills"),
    ("window backfill --from 2026-11-01 --to 2026-11-08", Exit::Ok, "backfill"),
    (
        "window backfill market-3h --from 2026-11-01 --to 2026-11-08 --preview",
        Exit::Ok,
        "backfill_preview",
    ),
    ("window backfill --from 2026-11-08 --to 2026-11-01", Exit::Usage, "backfill_empty"),
    ("event list --limit 4", Exit::Ok, "event_list"),
    ("event list --kind none", Exit::Ok, "event_list_empty"),
    ("event list --dead", Exit::Ok, "event_dead"),
    ("event tail --after 2 --limit 4", Exit::Ok, "event_tail"),
    ("event emit deploy.finished --key api --payload {\"v\":1}", Exit::Ok, "event_emit"),
    ("job list", Exit::Ok, "job_list"),
    ("job show 7", Exit::Ok, "job_show"),
    ("job show 8", Exit::NotFound, "job_not_found"),
    ("explain market-30m/2026-11-22T03:00:00Z", Exit::Ok, "explain"),
    ("explain market-30", Exit::NotFound, "explain_not_found"),
];

/// Golden files beyond those of [`COMMANDS`].
const MORE: &[&str] = &["help.txt", "status_offline.txt", "status_colour.txt", "store_broken.txt"];

fn page(command: &str, ran: &crate::Ran) -> String {
    let mut page = format!("$ watchbell {command}\n{}", ran.out);
    if !ran.err.is_empty() {
        page.push_str(&format!("[error stream]\n{}", ran.err));
    }
    page.push_str(&format!("[exit {}]\n", ran.exit as u8));
    page
}

#[tokio::test]
async fn commands_print_as_reviewed() {
    for (command, exit, name) in COMMANDS {
        let ran = typed(command, &Fake::default()).await;
        assert_eq!(ran.exit, *exit, "{command}: {}{}", ran.out, ran.err);
        golden::check(&format!("{name}.txt"), &page(command, &ran));
    }
}

#[tokio::test]
async fn the_status_tells_when_no_node_runs() {
    let ran = typed("status", &Fake { offline: true, ..Fake::default() }).await;
    golden::check("status_offline.txt", &page("status", &ran));
}

#[tokio::test]
async fn colours_change_nothing_but_colours() {
    let fake = Fake::default();
    let ran = typed_with("status", &fake, |out| out.style = Style::Colour).await;
    golden::check("status_colour.txt", &page("status", &ran).replace('\x1b', "\\e"));
    let mut plain = String::new();
    for (i, piece) in ran.out.split("\x1b[").enumerate() {
        plain.push_str(if i == 0 { piece } else { piece.split_once('m').unwrap().1 });
    }
    assert_eq!(plain, typed("status", &fake).await.out);
}

#[tokio::test]
async fn a_store_that_fails_is_explained() {
    let ran = typed("worker list", &Fake { broken: true, ..Fake::default() }).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Unavailable, ""));
    golden::check("store_broken.txt", &page("worker list", &ran));
}

#[test]
fn every_golden_file_is_used() {
    let pages = COMMANDS.iter().map(|(_, _, name)| format!("{name}.txt"));
    golden::no_leftovers(&pages.chain(MORE.iter().map(|m| (*m).to_owned())).collect::<Vec<_>>());
}

/// With `--json`, the text is the value of this type and nothing else.
async fn is<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(
    command: &str,
    value: &T,
) {
    let ran = typed(&format!("{command} --json"), &Fake::default()).await;
    let read: T = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{command}: {e}"));
    assert_eq!(read, *value, "{command}");
    assert_eq!(ran.out, serde_json::to_string_pretty(value).unwrap() + "\n", "{command}");
    assert_eq!(ran.err, "", "{command}");
}

#[tokio::test]
async fn json_is_exactly_what_the_control_answered() {
    let fake = Fake::default();
    let c: &dyn Control = &fake;
    is::<Status>("status", &c.status().await.unwrap()).await;
    is::<Vec<WorkerLine>>("worker list", &c.workers().await.unwrap()).await;
    let sync = || "market-sync".into();
    is::<WorkerDetail>("worker show market-sync", &c.worker(sync()).await.unwrap()).await;
    let pause = ActRequest { worker: sync(), action: Action::Pause, by: "ada".into() };
    let record = c.act(pause).await.unwrap();
    is::<Vec<WorkerRecord>>("worker pause market-sync", &vec![record]).await;
    let run = RunRequest { worker: sync(), options: RunOptions::default() };
    is::<RunReport>("run market-sync", &c.run(run).await.unwrap()).await;
    is::<Vec<ScheduleLine>>("schedule list", &c.schedules().await.unwrap()).await;
    is::<Vec<ScheduleLine>>("schedule status", &c.schedules().await.unwrap()).await;
    is::<Vec<WindowRecord>>("window list", &fixture::windows()).await;
    let versions = vec![fixture::windows()[1].clone()];
    is::<Vec<WindowRecord>>("window show market-30m 2026-11-22T02:30:00Z", &versions).await;
    let range = VerifyRequest::Range { series: None, from: None, to: None };
    is::<Vec<VerifyReport>>("window verify", &c.verify(range).await.unwrap()).await;
    is::<Vec<BackfillRecord>>("window backfill", &c.backfills().await.unwrap()).await;
    let request = BackfillRequest {
        series: None,
        from: fixture::at("2026-11-01"),
        to: fixture::at("2026-11-08"),
        preview: true,
        recompute: None,
        by: "ada".into(),
    };
    let report = c.backfill(request).await.unwrap();
    let command = "window backfill --from 2026-11-01 --to 2026-11-08 --dry-run";
    is::<BackfillReport>(command, &report).await;
    let newest = EventQuery { limit: 50, ..EventQuery::default() };
    is::<Vec<EventRecord>>("event list", &c.events(newest).await.unwrap()).await;
    is::<Vec<DeadLetter>>("event list --dead", &c.dead_letters(50).await.unwrap()).await;
    is::<Emitted>("event emit a", &Emitted { id: 10 }).await;
    let all = JobQuery { limit: 50, ..JobQuery::default() };
    is::<Vec<JobRecord>>("job list", &c.jobs(all).await.unwrap()).await;
    is::<JobRecord>("job show 7", &c.job(7).await.unwrap()).await;
    let thing = "market-30m/2026-11-22T03:00:00Z";
    let explanation = c.explain(thing.into()).await.unwrap();
    is::<Explanation>(&format!("explain {thing}"), &explanation).await;
}

#[tokio::test]
async fn json_of_a_tail_is_a_line_an_event_and_of_an_error_a_problem() {
    let fake = Fake::default();
    let ran = typed("event tail --after 4 --limit 2 --kind window.* --json", &fake).await;
    let ids: Vec<i64> =
        ran.out.lines().map(|l| serde_json::from_str::<EventRecord>(l).unwrap().id).collect();
    assert_eq!(ids, [6, 8]);
    let ran = typed("worker show market-sink --json", &fake).await;
    let problem: Problem = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((ran.out.as_str(), problem.status, ran.exit), ("", 404, Exit::NotFound));
    assert_eq!(problem.suggestion.as_deref(), Some("market-sync"));
}

#[tokio::test]
async fn a_misspelt_name_among_several_changes_nothing() {
    let fake = Fake::default();
    let ran = typed("worker stop market-sync market-sink", &fake).await;
    assert_eq!(ran.exit, Exit::NotFound);
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_reader_that_leaves_ends_what_is_followed() {
    let fake = Fake::default();
    let gone = |out: &mut watchbell_cli::Out| {
        let paper = crate::Paper { gone: true, ..crate::Paper::default() };
        let global = watchbell_cli::Global::default();
        *out = watchbell_cli::Out::to(Box::new(paper), Box::new(std::io::sink()), &global);
    };
    let ran = typed_with("event tail", &fake, gone).await;
    assert_eq!(ran.exit, Exit::Ok);
}

#[tokio::test]
async fn a_watch_prints_again_as_time_goes() {
    let clock = watchbell_clock::Clock::manual(fixture::NOW);
    let paper = crate::Paper::default();
    let watching = {
        let (clock, paper) = (clock.clone(), paper.clone());
        tokio::spawn(async move {
            let fake = Fake::default();
            typed_with("status --watch", &fake, move |out| {
                let global = watchbell_cli::Global::default();
                *out = watchbell_cli::Out::to(Box::new(paper), Box::new(std::io::sink()), &global);
                out.clock = clock;
            })
            .await
        })
    };
    let mut at = fixture::NOW;
    for times in 1..=3 {
        at = clock.next_timer(at + watchbell_core::Millis(1)).await;
        assert_eq!(paper.read().matches("SERIES").count(), times);
        clock.advance(at);
    }
    watching.abort();
}
