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
    ("worker show window-sampler-30m", Exit::Ok, "worker_show_window"),
    ("worker pause market-sync", Exit::Ok, "worker_pause"),
    ("worker restart market-sync window-sampler-3h --by grace", Exit::Ok, "worker_restart"),
    ("worker resume market-sync", Exit::Refused, "worker_resume_refused"),
    ("worker stop market-sync market-sink", Exit::NotFound, "worker_not_found"),
    ("run market-sync --once", Exit::Ok, "run"),
    ("run market-sync --dry-run", Exit::Ok, "run_dry"),
    (
        "run window-sampler-3h --force --window window-sampler-3h/2026-11-22T00:00:00Z",
        Exit::Failed,
        "run_failed",
    ),
    ("schedule list", Exit::Ok, "schedule_list"),
    ("schedule status", Exit::Ok, "schedule_status"),
    ("schedule run market-sync", Exit::Ok, "schedule_run"),
    ("window list", Exit::Ok, "window_list"),
    ("window list --series none", Exit::Ok, "window_list_empty"),
    ("window list --failed", Exit::Ok, "window_list_failed"),
    ("window retry window-sampler-3h 2026-11-22", Exit::Ok, "window_retry"),
    ("window retry window-sampler-3h 2026-11-22 --preview", Exit::Ok, "window_retry_preview"),
    (
        "window retry window-sampler-30m 2026-11-22T02:30:00Z",
        Exit::Refused,
        "window_retry_complete",
    ),
    ("window abandon window-sampler-3h 2026-11-22 --reason gap", Exit::Ok, "window_abandon"),
    (
        "window abandon window-sampler-3h 2026-11-22 --reason gap --preview",
        Exit::Ok,
        "window_abandon_preview",
    ),
    ("window show window-sampler-30m 2026-11-22T02:30:00Z", Exit::Ok, "window_show"),
    ("window show window-sampler-3h 2026-11-22", Exit::Ok, "window_show_failed"),
    ("window show window-sampler-3h 2026-11-23", Exit::NotFound, "window_not_found"),
    ("window verify window-sampler-30m 2026-11-22T02:30:00Z", Exit::Ok, "window_verify_same"),
    ("window verify", Exit::Failed, "window_verify"),
    ("window backfill", Exit::Ok, "backfills"),
    ("window backfill --from 2026-11-01 --to 2026-11-08", Exit::Ok, "backfill"),
    (
        "window backfill window-sampler-3h --from 2026-11-01 --to 2026-11-08 --preview",
        Exit::Ok,
        "backfill_preview",
    ),
    ("window backfill --from 2026-11-08 --to 2026-11-01", Exit::Usage, "backfill_empty"),
    ("event list --limit 4", Exit::Ok, "event_list"),
    ("event list --kind none", Exit::Ok, "event_list_empty"),
    ("event list --dead", Exit::Ok, "event_dead"),
    ("event tail --since 2 --limit 4", Exit::Ok, "event_tail"),
    ("event tail --last 2", Exit::Ok, "event_tail_last"),
    ("event emit deploy.finished --key api --payload {\"v\":1}", Exit::Ok, "event_emit"),
    ("job enqueue export --priority 5 --in 10m", Exit::Ok, "job_enqueue"),
    (
        "job enqueue export {\"series\":\"m\"} --key export:window-sampler-30m --unique-in running,failed",
        Exit::Ok,
        "job_enqueue_duplicate",
    ),
    ("job enqueue expotr", Exit::Usage, "job_enqueue_unknown"),
    ("job enqueue export {\"series\":7}", Exit::Usage, "job_enqueue_refused"),
    ("job enqueue export {\"series\"", Exit::Usage, "job_enqueue_not_json"),
    ("job list", Exit::Ok, "job_list"),
    ("job list --kind export --error full --limit 1", Exit::Ok, "job_list_page"),
    ("job list --state succeeded", Exit::Ok, "job_list_empty"),
    ("job show 7", Exit::Ok, "job_show"),
    ("job show 9", Exit::Ok, "job_show_running"),
    ("job show 10", Exit::NotFound, "job_not_found"),
    ("job cancel 7 9", Exit::Ok, "job_cancel"),
    ("job cancel 7 8", Exit::Refused, "job_cancel_ended"),
    ("job cancel 7 77", Exit::NotFound, "job_cancel_unknown"),
    ("job cancel", Exit::Usage, "job_cancel_which"),
    ("job cancel --all --preview", Exit::Ok, "job_cancel_preview"),
    ("job cancel --kind export", Exit::Usage, "job_cancel_unconfirmed"),
    ("job retry --kind export --yes", Exit::Ok, "job_retry"),
    ("job retry 8", Exit::Refused, "job_retry_failed"),
    ("job redrive --error full --yes", Exit::Ok, "job_redrive"),
    ("job purge --state failed --finished-before 2026-11-22 --yes", Exit::Ok, "job_purge"),
    ("job kinds", Exit::Ok, "job_kinds"),
    ("job kinds export", Exit::Ok, "job_kind"),
    ("job kinds exprot", Exit::NotFound, "job_kind_not_found"),
    ("job stats", Exit::Ok, "job_stats"),
    ("node list", Exit::Ok, "node_list"),
    ("explain window-sampler-30m/2026-11-22T03:00:00Z", Exit::Ok, "explain"),
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
    is::<Vec<WindowRecord>>("window show window-sampler-30m 2026-11-22T02:30:00Z", &versions).await;
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
    is::<JobDetail>("job show 7", &c.job(7).await.unwrap()).await;
    is::<Vec<Enqueued>>("job enqueue mail", &vec![Enqueued::Added(10)]).await;
    let cancel = JobChange {
        filter: JobFilter::default(),
        action: JobAction::Cancel,
        limit: CHANGE_LIMIT,
        preview: true,
        by: "ada".into(),
    };
    let found = c.change_jobs(cancel.clone()).await.unwrap();
    is::<JobChanged>("job cancel --all --preview", &found).await;
    let done = c.change_jobs(JobChange { preview: false, ..cancel }).await.unwrap();
    is::<JobChanged>("job cancel --all --yes", &done).await;
    is::<Vec<KindRecord>>("job kinds", &c.kinds().await.unwrap()).await;
    is::<KindRecord>("job kinds mail", &c.kinds().await.unwrap()[1]).await;
    is::<Vec<QueueLine>>("job stats", &c.queue().await.unwrap()).await;
    is::<Vec<NodeRecord>>("node list", &c.nodes().await.unwrap()).await;
    let thing = "window-sampler-30m/2026-11-22T03:00:00Z";
    let explanation = c.explain(thing.into()).await.unwrap();
    is::<Explanation>(&format!("explain {thing}"), &explanation).await;
}

#[tokio::test]
async fn json_of_a_tail_is_a_line_an_event_and_of_an_error_a_problem() {
    let fake = Fake::default();
    let ran = typed("event tail --since 4 --limit 2 --kind window.* --follow --json", &fake).await;
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

/// Types a command with this input, and with somebody there to answer or not.
async fn with_input(line: &str, input: &'static str, asks: bool, fake: &Fake) -> crate::Ran {
    let change = move |out: &mut watchbell_cli::Out| {
        out.input = Box::new(std::io::Cursor::new(input));
        out.asks = asks;
    };
    typed_with(line, fake, change).await
}

#[tokio::test]
async fn a_change_by_filter_waits_for_a_yes() {
    let fake = Fake::default();
    for (answer, exit, changes) in [
        ("y\n", Exit::Ok, 1),
        ("YES\n", Exit::Ok, 1),
        ("n\n", Exit::Refused, 0),
        ("\n", Exit::Refused, 0),
        ("", Exit::Refused, 0),
    ] {
        let before = fake.asked().len();
        let ran = with_input("job cancel --kind export", answer, true, &fake).await;
        assert_eq!(ran.exit, exit, "{answer:?}");
        assert!(ran.out.starts_with("would cancel 1 job\n"), "{}", ran.out);
        assert!(ran.err.starts_with("cancel 1 job? [y/N] "), "{}", ran.err);
        let asked = fake.asked().split_off(before);
        let done = asked.iter().filter(|a| a.contains("preview: false")).count();
        assert_eq!(done, changes, "{answer:?}: {asked:?}");
    }
    // Where nothing matches there is nothing to confirm.
    let ran = with_input("job purge --kind none", "", true, &fake).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "would delete 0 jobs\n"));
    // Scripts read JSON, and cannot answer.
    let ran = with_input("job cancel --kind export --json", "y\n", true, &fake).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Usage, ""));
}

#[tokio::test]
async fn nothing_is_changed_but_by_a_confirmed_order() {
    let fake = Fake::default();
    for line in ["job cancel --kind export", "job cancel 7 8", "job cancel 7 77", "job purge"] {
        typed(line, &fake).await;
    }
    let changed: Vec<_> =
        fake.asked().into_iter().filter(|a| a.contains("preview: false")).collect();
    assert_eq!(changed, Vec::<String>::new());
}

#[tokio::test]
async fn jobs_are_read_from_the_input_and_from_files() {
    let fake = Fake::default();
    let ran = with_input("job enqueue export -", "{\"series\": \"m\"}", false, &fake).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "job 10 added\n"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("payload.json");
    let line = format!("job enqueue export --file {}", file.display());
    let ran = typed(&line, &fake).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.starts_with("error: cannot read ") && ran.err.contains("because:"));
    std::fs::write(&file, "{\"series\": \"from a file\"}").unwrap();
    assert_eq!(typed(&line, &fake).await.exit, Exit::Ok);
    assert!(fake.asked().last().unwrap().contains("from a file"));
}

#[tokio::test]
async fn a_bulk_file_is_taken_whole_or_refused_with_its_lines() {
    let fake = Fake::default();
    let bulk = async |text| with_input("job enqueue --bulk -", text, false, &fake).await;
    let good = "{\"kind\": \"mail\"}\n\n{\"kind\": \"export\", \"unique_key\": \
                \"export:window-sampler-30m\", \"unique_in\": [\"queued\"]}\n{\"kind\": \"mail\"}";
    let ran = bulk(good).await;
    let said = "2 jobs added: 10 to 11; 1 was not: its key is taken\n";
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, said));
    let enqueued = fake.asked().len();
    let ran = bulk("{\"kind\": \"mail\"}\n\n{\"kid\": 1}\n{\"kind\"").await;
    assert_eq!(ran.exit, Exit::Usage);
    assert_eq!(
        ran.err,
        "error: 2 of 3 lines of - cannot be read as a job; nothing was added\n  \
           because: -:3: unknown field `kid`, expected one of `kind`, `payload`, `unique_key`, \
         `unique_in`, `limit_key`, `run_at`, `priority`, `max_attempts` (column 6)\n  \
           because: -:4: EOF while parsing an object (column 7)\n\
         help: a line is like {\"kind\": \"export\", \"payload\": {}}\n"
    );
    assert_eq!(fake.asked().len(), enqueued);
    // What the store refuses is told by its line as well.
    let ran =
        bulk("\n{\"kind\": \"mail\"}\n\n{\"kind\": \"mail\", \"payload\": {\"series\": 7}}").await;
    assert_eq!(ran.err, "error: -:4: payload.series: 7 is not of type \"string\"\n");
}

#[tokio::test]
async fn options_of_a_job_arrive() {
    let fake = Fake::default();
    let line = "job enqueue export --key k --unique-in running,succeeded --limit-key BTC \
                --priority 0 --at 2026-11-23 --max-attempts 1";
    assert_eq!(typed(line, &fake).await.exit, Exit::Ok);
    let job = watchbell_core::NewJob {
        unique_key: Some("k".into()),
        unique_in: watchbell_core::job::Mask::of(&[
            watchbell_core::job::State::Running,
            watchbell_core::job::State::Succeeded,
        ]),
        limit_key: Some("BTC".into()),
        run_at: Some(fixture::at("2026-11-23")),
        priority: Some(0),
        max_attempts: Some(1),
        ..watchbell_core::NewJob::new("export", serde_json::json!({}))
    };
    assert_eq!(fake.asked(), [format!("enqueue {:?}", [job])]);
    typed("job enqueue export --in 1h", &fake).await;
    let due = fixture::later("1h");
    assert!(fake.asked()[1].contains(&format!("run_at: Some({due:?})")), "{:?}", fake.asked());
}

#[tokio::test]
async fn a_reader_that_leaves_ends_what_is_followed() {
    let fake = Fake::default();
    let gone = |out: &mut watchbell_cli::Out| {
        let paper = crate::Paper { gone: true, ..crate::Paper::default() };
        let global = watchbell_cli::Global::default();
        *out = watchbell_cli::Out::to(Box::new(paper), Box::new(std::io::sink()), &global);
    };
    let ran = typed_with("event tail --follow", &fake, gone).await;
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
