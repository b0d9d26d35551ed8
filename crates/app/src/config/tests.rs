//! The configuration from outside: texts in, values or exact messages out.

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use watchbell_core::schedule::Cron;
use watchbell_core::worker::Dependency;
use watchbell_core::{Definition, Millis, Missed, Trigger, WindowSpec, WorkerName};
use watchbell_market::analytics::shift::ShiftConfig;

use super::raw::{Length, Raw};
use super::*;

const EXAMPLE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/watchbell.yaml"));
const GOLDEN: &str = include_str!("malformed.txt");

/// The workers of a small house.
fn catalog(market: &Market, _: &Scan) -> Catalog {
    known(market)
}

fn known(market: &Market) -> Catalog {
    let fixed = ["market-sync", "market-points", "market-report"].map(str::to_owned);
    let windows = market.windows.iter().map(|w| format!("window-sampler-{}", Length(*w).exact()));
    let workers: Vec<WorkerName> = fixed.into_iter().chain(windows).map(WorkerName::from).collect();
    let mut profiles = Profiles::from([("all".to_owned(), workers.clone())]);
    profiles.insert("default".to_owned(), workers.iter().take(2).cloned().collect());
    Catalog { workers, profiles }
}

/// What a case is loaded from.
#[derive(Default)]
struct Given<'a> {
    file: Option<&'a str>,
    env: &'a [(&'a str, &'a str)],
    dotenv: &'a str,
    flags: Overrides,
}

impl Given<'_> {
    fn load(self) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        if let Some(text) = self.file {
            std::fs::write(dir.path().join("watchbell.yaml"), text).unwrap();
        }
        let process = self.env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let env = Env::merged(process, self.dotenv)?;
        let dir = dir.path().to_owned();
        Config::load(&Sources {
            dir,
            file: None,
            env: &env,
            overrides: self.flags,
            catalog: &catalog,
        })
    }
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    Given { file: Some(text), ..Given::default() }.load()
}

fn ok(text: &str) -> Config {
    from_file(text).unwrap_or_else(|e| panic!("{e}"))
}

fn store_file(config: &Config) -> &StoreFile {
    let Store::File(file) = &config.store else { panic!("{:?}", config.store) };
    file
}

#[test]
fn each_malformed_configuration_gets_its_exact_message() {
    let (head, cases) = GOLDEN.split_once("=== ").unwrap();
    let mut actual = head.to_owned();
    for case in cases.split("\n=== ") {
        let (input, _) = case.split_once("--- error\n").unwrap();
        let part = |name: &str| {
            let text = input.split_once(&format!("--- {name}\n"))?.1;
            // Another part begins with `--- ` and a word; a bare `---` is YAML's own.
            Some(text.split_once("\n--- ").map_or(text, |(part, _)| part).to_owned())
        };
        let env_text = part("env").unwrap_or_default();
        let env: Vec<_> = env_text.lines().filter_map(|l| l.split_once('=')).collect();
        let flags = part("flags").unwrap_or_default();
        let profile = flags.trim().strip_prefix("--profile=").map(str::to_owned);
        let (file, dotenv) = (part("file"), part(".env").unwrap_or_default());
        let given = Given {
            file: file.as_deref(),
            env: &env,
            dotenv: &dotenv,
            flags: Overrides { profile, ..Overrides::default() },
        };
        let error = given.load().expect_err(case).to_string();
        assert!(!error.contains("hunter2") && !error.contains("secret@"), "{error}");
        actual.push_str(&format!("=== {input}--- error\n{error}\n\n"));
    }
    let actual = format!("{}\n", actual.trim_end());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/malformed.txt");
        std::fs::write(path, &actual).unwrap();
        return;
    }
    for (want, got) in GOLDEN.split("\n=== ").zip(actual.split("\n=== ")) {
        assert_eq!(got.trim_end(), want.trim_end());
    }
}

#[test]
fn without_file_and_environment_everything_has_its_default() {
    let config = Given::default().load().unwrap();
    assert_eq!(config.raw, Raw::default());
    assert_eq!(config.file(), None);
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:8770");
    let file = store_file(&config);
    assert!(file.path.ends_with("watchbell-data/watchbell.db"));
    assert_eq!(file.synchronous, Synchronous::Full);
    assert_eq!(config.market.windows, [30, 60, 180].map(Millis::from_mins));
    assert_eq!(config.market.symbols.len(), 7);
    assert_eq!(config.market.sampling.settle, Millis(1_500));
    assert_eq!(config.profile.name, "default");
    assert_eq!(config.profile.workers.len(), 2);
    assert!(config.warnings.is_empty());
}

#[test]
fn a_file_of_comments_and_empty_sections_is_the_default() {
    for text in ["", "# nothing\n", "market:\n  # windows: [30m]\nstore:\n"] {
        assert_eq!(ok(text).raw, Raw::default(), "{text:?}");
    }
}

#[test]
fn the_generated_default_reads_back_as_the_default() {
    let yaml = default_yaml();
    assert_eq!(ok(&yaml).raw, Raw::default(), "{yaml}");
    assert!(yaml.contains("# How far SQLite goes before it says that a commit is done."));
}

#[test]
fn the_example_is_read() {
    let config = ok(EXAMPLE);
    assert!(config.warnings.is_empty());
    let definitions = known(&config.market)
        .workers
        .into_iter()
        .map(|name| Definition::new(name, Trigger::Manual))
        .collect();
    config.apply_overrides(definitions).unwrap();
}

#[test]
fn each_key_of_the_default_is_in_the_schema_with_a_description() {
    fn walk(value: &Value, schema: &Value, path: &str) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let schema = &schema["properties"][key];
            assert!(schema["description"].is_string(), "{path}.{key} is not described");
            assert_eq!(schema["default"], *value, "{path}.{key} has another default");
            walk(value, schema, &format!("{path}.{key}"));
        }
    }
    let schema = schema();
    walk(&serde_json::to_value(Raw::default()).unwrap(), &schema, "");
    assert_eq!(schema["additionalProperties"], false);
    let worker = &schema["properties"]["workers"]["additionalProperties"]["properties"];
    for (key, field) in worker.as_object().unwrap() {
        assert!(field["description"].is_string(), "workers.NAME.{key} is not described");
    }
}

#[test]
fn flags_win_over_environment_over_dotenv_over_file() {
    let file = "log: { level: error }\ndata_dir: file\n";
    let dotenv = "WATCHBELL_LOG__LEVEL=warn\nWATCHBELL_DATA_DIR=dotenv\n";
    let env = [("WATCHBELL_LOG__LEVEL", "debug"), ("WATCHBELL_DATA_DIR", "env")];
    let flags = Overrides { data_dir: Some("flag".into()), ..Overrides::default() };
    type Step<'a> = (Given<'a>, &'a str, &'a str);
    let steps: [Step<'_>; 4] = [
        (Given { file: Some(file), ..Given::default() }, "error", "file"),
        (Given { file: Some(file), dotenv, ..Given::default() }, "warn", "dotenv"),
        (Given { file: Some(file), dotenv, env: &env, ..Given::default() }, "debug", "env"),
        (Given { file: Some(file), dotenv, env: &env, flags }, "debug", "flag"),
    ];
    for (given, level, dir) in steps {
        let config = given.load().unwrap();
        assert_eq!(config.log.level.as_str(), level);
        assert!(config.data_dir.ends_with(dir), "{}", config.data_dir.display());
    }
}

#[test]
fn the_environment_reaches_every_kind_of_key() {
    let config = Given {
        file: Some("market:\n  repair: { hole_after: 9 }\n"),
        env: &[
            ("WATCHBELL_HTTP__ENABLED", "false"),
            ("WATCHBELL_STORE__READERS", "7"),
            ("WATCHBELL_VENUE__WEIGHT_FRACTION", "0.5"),
            ("WATCHBELL_MARKET__SYMBOLS", "BTCUSDT, ETHUSDT"),
            ("WATCHBELL_MARKET__WINDOWS", "[20m, 10m]"),
            ("WATCHBELL_MARKET__REPAIR__MAX_GAPS_PER_RUN", "5"),
            ("WATCHBELL_WORKERS__MARKET_SYNC__MISSED", "{all: 3}"),
            ("WATCHBELL_WORKERS__MARKET_SYNC__EVERY", "15s"),
            ("WATCHBELL_PROFILES__NIGHT_SHIFT", "market-sync"),
            ("WATCHBELL_PROFILE", "night-shift"),
            ("DATABASE_URL", "sqlite:other.db"),
            // What an external worker is given, what other programs use, and what is empty.
            ("WATCHBELL_CYCLE_ID", "17"),
            ("WATCHBELL_DATADIR", "/x"),
            ("WATCHBELL_LOG__LEVEL", ""),
        ],
        ..Given::default()
    }
    .load()
    .unwrap_or_else(|e| panic!("{e}"));
    assert!(!config.http.enabled);
    assert_eq!(store_file(&config).readers, 7);
    assert_eq!(config.venue.weight_fraction, 0.5);
    assert_eq!(config.market.symbols, ["BTCUSDT", "ETHUSDT"]);
    assert_eq!(config.market.windows, [10, 20].map(Millis::from_mins));
    assert_eq!(config.market.repair.max_gaps_per_run, 5);
    assert_eq!(config.market.repair.hole_after, 9);
    assert_eq!(config.profile.workers, [WorkerName::from("market-sync")]);
    assert!(store_file(&config).path.ends_with("watchbell-data/other.db"));
    let sync = &config.workers[0];
    assert_eq!(sync.missed, Some(Missed::All { cap: 3 }));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("did you mean `data_dir`?"), "{:?}", config.warnings);
}

#[test]
fn the_store_key_wins_over_database_url() {
    let env = [("DATABASE_URL", "a.db"), ("WATCHBELL_STORE__URL", "b.db")];
    let config = Given { env: &env, ..Given::default() }.load().unwrap();
    assert!(store_file(&config).path.ends_with("b.db"));
}

#[test]
fn a_server_is_a_store_and_its_password_is_nowhere_to_be_seen() {
    let url = "postgres://wb:hunter2@db.internal:6432/night?sslmode=require";
    let file = "store:\n  pool: 20\n  pooler: transaction\n  synchronous: normal\n";
    let env = [("DATABASE_URL", url)];
    let config = Given { file: Some(file), env: &env, ..Given::default() }.load().unwrap();
    let Store::Server(options) = &config.store else { panic!("{:?}", config.store) };
    assert_eq!((options.pool_size, options.pooler), (20, true));
    assert_eq!(options.url, url);
    assert_eq!(config.store.location(), "db.internal:6432/night");
    assert_eq!(config.warnings, ["store.synchronous has no effect on PostgreSQL"]);
    let shown = config.render(true);
    assert!(shown.contains("postgres://wb:***@db.internal:6432/night?sslmode=require"), "{shown}");
    let json = config.effective(true).to_string();
    for text in [format!("{config:?}"), shown, json, format!("{:?}", config.store)] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let sqlite = ok("store: { pool: 9, readers: 2 }\n");
    assert_eq!(sqlite.warnings, ["store.pool has no effect on SQLite"]);
}

#[test]
fn no_password_is_shown_however_it_is_written() {
    for (url, shown) in [
        ("postgres://u:s@h/d", "postgres://u:***@h/d"),
        ("postgres://u:s/e?c#ret@h:1/d?x=1", "postgres://u:***@h:1/d?x=1"),
        ("postgresql://u:s@cret@h/d", "postgresql://u:***@h/d"),
        ("postgres://h/d?user=u&password=secret&x=1", "postgres://h/d?user=u&password=***&x=1"),
        ("https://h:1/a@b", "https://h:1/a@b"),
        (
            "see https://u:s@h/x and postgres://u:s@h/d",
            "see https://u:***@h/x and postgres://u:***@h/d",
        ),
    ] {
        assert_eq!(problem::redact(url), shown);
    }
}

#[test]
fn the_port_flag_changes_the_port_only() {
    let flags = Overrides { http_port: Some(0), ..Overrides::default() };
    let file = Some("http: { bind: \"[::1]:9000\" }\n");
    let config = Given { file, flags, ..Given::default() }.load().unwrap();
    assert_eq!(config.http.bind.to_string(), "[::1]:0");
    assert!(config.render(true).contains("# --http-port"));
}

#[test]
fn variables_of_a_predecessor_are_keys() {
    let load = |env: &[(&str, &str)]| Given { env, ..Given::default() }.load();
    let secs = Millis::from_secs;
    for (value, interval, warned) in [
        ("60000", secs(60), None),
        ("5000", secs(5), None),
        ("100", secs(5), None),
        ("-1", secs(5), None),
        ("soon", secs(40), Some("`soon` is no number of milliseconds")),
        ("4e4", secs(40), Some("`4e4` is no number of milliseconds")),
        ("", secs(40), None),
    ] {
        let config = load(&[("STR_AUX_RUNNER_INTERVAL_MS", value)]).unwrap();
        assert_eq!(config.market.runner.interval, interval, "{value}");
        let warned = warned.map(|why| {
            format!("environment variable STR_AUX_RUNNER_INTERVAL_MS: {why}: the default holds")
        });
        assert_eq!(config.warnings, warned.into_iter().collect::<Vec<_>>(), "{value}");
    }
    let config = load(&[
        ("STR_AUX_RUNNER_SESSION_ID", "night"),
        ("STR_SAMPLER_POLL_MS", "2500"),
        ("MOO_AUX_STR_WINDOW", "1h"),
        ("MOO_AUX_SYMBOL_LIMIT", "7"),
    ]);
    let market = config.unwrap().market;
    assert_eq!(market.runner.session, "night");
    assert_eq!(market.sampling.poll, Millis(2_500));
    assert_eq!((market.mood.window, market.mood.symbols), (Millis::from_hours(1), 7));
    // Our own names win, and what they refuse is refused under the name that was set.
    let both = [("MOO_AUX_SYMBOL_LIMIT", "7"), ("WATCHBELL_MARKET__MOOD__SYMBOLS", "9")];
    assert_eq!(load(&both).unwrap().market.mood.symbols, 9);
    let refused = load(&[("MOO_AUX_STR_WINDOW", "2h")]).unwrap_err().to_string();
    assert!(refused.contains("MOO_AUX_STR_WINDOW") && refused.contains("30m, 1h, 3h"), "{refused}");
}

#[test]
fn thresholds_of_shifts_are_read() {
    let thresholds = |yaml: &str| ok(yaml).market.runner.thresholds;
    assert_eq!(thresholds(""), ShiftConfig::default());
    let yaml =
        "market: { runner: { shift_pct: 0.2, shift_cycles: 3, both_ways: false, swap_pct: 0 } }\n";
    let own = ShiftConfig { epsilon_pct: 0.2, streak: 3, both_ways: false, swap_eta_pct: 0.0 };
    assert_eq!(thresholds(yaml), own);
}

#[test]
fn observations_are_kept_for_a_while_or_for_ever() {
    let retention = |yaml: &str| ok(yaml).market.retention;
    assert_eq!(retention(""), watchbell_market::Retention::default());
    let yaml = "market: { retention: { points: 2d, cycles: keep, trades: 0, sync_log: 1h30m } }\n";
    let changed = retention(yaml);
    assert_eq!((changed.points, changed.cycles), (Some(Millis::from_days(2)), None));
    assert_eq!((changed.trades, changed.sync_log), (None, Some(Millis::from_mins(90))));
    assert_eq!(changed.books, watchbell_market::Retention::default().books);
    // Where nothing is said, long windows have what they need.
    let long = retention("market: { windows: [2d], history: 7d }\n");
    assert_eq!(
        (long.points, long.trades),
        (Some(Millis::from_days(14)), Some(Millis::from_days(4)))
    );
}

#[test]
fn the_mood_is_made_of_the_usual_window_or_of_the_shortest() {
    let window = |yaml: &str| ok(yaml).market.mood.window;
    assert_eq!(window(""), Millis::from_mins(30));
    assert_eq!(window("market: { windows: [1h, 3h] }\n"), Millis::from_hours(1));
    assert_eq!(window("market: { mood: { window: 3h } }\n"), Millis::from_hours(3));
}

#[test]
fn the_formulas_of_mood_and_allocation_have_keys() {
    use watchbell_market::mood::Params;
    let market = ok("").market;
    assert_eq!(market.mood.params, Params::default());
    assert_eq!((market.mea.k, &market.mea.pair), (None, &None));
    assert_eq!(market.validation_interval, Millis::from_secs(60));
    let market = ok("market:\n  mood: { mu_t: -0.1, sigma_t: 0.5, mu_s: 0.25, sigma_s: 0.35 }\n  \
                     mea: { k: 3, pair: ETH/BTC }\n  validation_interval: 5m\n")
    .market;
    let params = Params { mu_t: -0.1, sigma_t: 0.5, mu_s: 0.25, sigma_s: 0.35 };
    assert_eq!((market.mood.params, params.check()), (params, Ok(())));
    assert_eq!(market.mea.k, Some(3));
    assert_eq!(market.mea.pair, Some(("ETH".into(), "BTC".into())));
    assert_eq!(market.validation_interval, Millis::from_mins(5));
    for (yaml, says) in [
        (
            "market:\n  mood: { sigma_t: 0 }\n",
            "watchbell.yaml:2:20: market.mood.sigma_t: `0` is out of range; allowed: a number from \
             0.0001 to 100",
        ),
        (
            "market:\n  mood: { mu_s: -1.5 }\n",
            "watchbell.yaml:2:17: market.mood.mu_s: `-1.5` is out of range; allowed: a number \
             from -1 to 1",
        ),
        (
            "market:\n  mea: { k: 0 }\n",
            "watchbell.yaml:2:13: market.mea.k: `0` is out of range; allowed: a whole number from 1 to \
             10000",
        ),
        (
            "market:\n  mea:\n    pair: BTC/BTC\n",
            "watchbell.yaml:3:11: market.mea.pair: `BTC/BTC` is not a pair of coins; allowed: two \
             coins in capital letters and digits, such as ETH/BTC",
        ),
        ("market: { mea: { pair: eth-btc } }\n", "`eth-btc` is not a pair of coins"),
        (
            "market: { validation_interval: 1s }\n",
            "market.validation_interval: `1s` is too short; allowed: 10s or longer",
        ),
    ] {
        let refused = from_file(yaml).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}

#[test]
fn run_jobs_opens_the_gate() {
    let exit = Gate::Exit("jobs: starting (set RUN_JOBS=1 to enable background workers)");
    for (value, up, orchestrator) in [
        (None, Gate::Run, exit),
        (Some("1"), Gate::Run, Gate::Run),
        (Some("0"), exit, exit),
        (Some(""), exit, exit),
        (Some("true"), exit, exit),
        (Some("1 "), exit, exit),
    ] {
        let vars = value.map(|v| ("RUN_JOBS".to_owned(), v.to_owned()));
        let env = Env::merged(vars, "").unwrap();
        assert_eq!(run_jobs_gate(&env, false), up, "up with {value:?}");
        assert_eq!(run_jobs_gate(&env, true), orchestrator, "run-all with {value:?}");
    }
}

#[test]
fn a_named_file_is_read_and_a_missing_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), "profile: all\n").unwrap();
    std::fs::write(dir.path().join("latin.yaml"), b"# ok\n# \xe9\n").unwrap();
    let env = Env::default();
    let load = |file: &str| {
        Config::load(&Sources {
            dir: dir.path().to_owned(),
            file: Some(file.into()),
            env: &env,
            overrides: Overrides::default(),
            catalog: &catalog,
        })
    };
    assert_eq!(load("a.yaml").unwrap().profile.name, "all");
    let missing = load("b.yaml").unwrap_err().to_string();
    assert!(missing.starts_with("flag --config: cannot read b.yaml: "), "{missing}");
    assert_eq!(load("latin.yaml").unwrap_err().to_string(), "latin.yaml:2: not UTF-8 text");
}

#[test]
fn the_values_are_shown_with_their_origin_and_without_passwords() {
    let config = Given {
        file: Some("venue:\n  base_url: https://me:hunter2@proxy.example/\n"),
        dotenv: "\nWATCHBELL_LOG__FORMAT=json\n",
        env: &[("WATCHBELL_NODE__LEASE_TTL", "1m")],
        flags: Overrides { profile: Some("all".to_owned()), ..Overrides::default() },
    }
    .load()
    .unwrap();
    let shown = config.render(true);
    let line = |key: &str| {
        let line = shown.lines().find(|l| l.trim_start().starts_with(&format!("{key}:")));
        line.unwrap_or_else(|| panic!("{key} is missing in\n{shown}")).to_owned()
    };
    assert!(line("base_url").contains("me:***@proxy.example"), "{shown}");
    assert!(line("base_url").ends_with("# watchbell.yaml:2"), "{shown}");
    assert!(line("lease_ttl").ends_with("# WATCHBELL_NODE__LEASE_TTL"), "{shown}");
    assert!(line("format").ends_with("# WATCHBELL_LOG__FORMAT (.env:2)"), "{shown}");
    assert!(line("profile").ends_with("# --profile"), "{shown}");
    assert!(line("data_dir").ends_with("# default"), "{shown}");
    assert!(!shown.contains("hunter2") && config.render(false).contains("hunter2"));
    assert!(!config.effective(true).to_string().contains("hunter2"));
    assert_eq!(ok(&config.render(false)).raw, config.raw, "what is shown reads back");
}

#[test]
fn a_value_that_is_long_or_has_lines_stays_on_one_line_when_shown() {
    let long = format!("a: b # {}", "word ".repeat(60));
    for dir in [r"two\nlines: x", long.as_str()] {
        let config = ok(&format!("data_dir: \"{dir}\"\n"));
        assert_eq!(ok(&config.render(true)).raw, config.raw);
        assert!(
            config.render(true).lines().any(|l| l.contains("data_dir: ") && l.contains("# watch"))
        );
    }
}

fn definitions() -> Vec<Definition> {
    let every = Trigger::Every { period: Millis::from_secs(30), offset: Millis::from_secs(7) };
    let window = Trigger::Window(WindowSpec {
        series: "window-sampler-30m".into(),
        length: Millis::from_mins(30),
        settle: Millis::ZERO,
        inputs: Vec::new(),
        max_attempts: 3,
    });
    vec![
        Definition::new("market-sync", every),
        Definition::new("market-points", Trigger::Stream).needs("market-sync"),
        Definition::new("market-report", Trigger::Manual).after("market-points"),
        Definition::new("window-sampler-30m", window),
    ]
}

#[test]
fn overrides_change_what_they_name_and_nothing_else() {
    let config = ok("\
workers:
  market-sync:
    every: 5s
    missed: skip
    jitter: 1s
  market-points:
    enabled: false
    needs: []
    after: [market-sync]
    lane: book
    stale_after: 1m
  market-report:
    cron: '30 2 * * *'
    time_zone: Europe/Berlin
    soft_timeout: 1m
");
    let changed = config.apply_overrides(definitions()).unwrap();
    let mut want = definitions();
    want[0].trigger = Trigger::Every { period: Millis::from_secs(5), offset: Millis::from_secs(2) };
    want[0].missed = Missed::Skip;
    want[0].jitter = Millis::from_secs(1);
    want[1].unavailable =
        Some("workers.market-points.enabled is false (watchbell.yaml:7)".to_owned());
    want[1].needs = vec![Dependency { worker: "market-sync".into(), soft: true }];
    want[1].lane = Some("book".to_owned());
    want[1].stale_after = Some(Millis::from_mins(1));
    want[2].trigger = Trigger::Cron(Cron::parse("30 2 * * *", "Europe/Berlin").unwrap());
    want[2].soft_timeout = Millis::from_mins(1);
    assert_eq!(changed, want);
}

#[test]
fn overrides_that_do_not_go_with_the_worker_are_refused() {
    let error = |text: &str| ok(text).apply_overrides(definitions()).unwrap_err().to_string();
    assert_eq!(
        error("workers:\n  window-sampler-30m:\n    every: 5m\n"),
        "watchbell.yaml:3:12: workers.window-sampler-30m.every: window-sampler-30m runs by `window`, not by time; \
         allowed: no such key\n  |\n3 |     every: 5m\n  |            ^^"
    );
    assert_eq!(
        error("workers:\n  market-sync:\n    soft_timeout: 1h\n"),
        "watchbell.yaml:3:19: workers.market-sync.soft_timeout: a soft timeout of 1h is longer than \
         the hard one, 10m; allowed: soft_timeout up to hard_timeout; set both for market-sync\n  \
         |\n3 |     soft_timeout: 1h\n  |                   ^^"
    );
    let circle = error("workers:\n  market-sync:\n    needs: [market-points]\n");
    assert!(circle.starts_with("watchbell.yaml:3:12: workers.market-sync.needs: "), "{circle}");
    assert!(
        circle.contains("market-points -> market-sync -> market-points")
            || circle.contains("market-sync -> market-points -> market-sync"),
        "{circle}"
    );
}

#[test]
fn dotenv_lines_mean_what_they_seem_to() {
    for (line, value) in [
        ("A=b", "b"),
        ("export A = b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=", ""),
        ("A= # nothing", ""),
        ("A='$x \\n #'", "$x \\n #"),
        (r#"A="a\n\"b\" \$c" # d"#, "a\n\"b\" $c"),
        ("\u{feff}A=1", "1"),
        ("A=postgres://u:p@h/d?x=1", "postgres://u:p@h/d?x=1"),
        ("A=1\r\nB=2\r\n", "1"),
        ("A=1\nA=2", "2"),
    ] {
        let env = Env::merged([], line).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(env.get("A"), Some(value), "{line}");
    }
}

#[test]
fn the_process_environment_is_laid_over_dotenv() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".env"), "PATH=shadowed\nONLY_HERE=1\n").unwrap();
    let env = Env::load(dir.path()).unwrap();
    assert_eq!(env.get("ONLY_HERE"), Some("1"));
    assert_eq!(env.get("PATH"), std::env::var("PATH").ok().as_deref());
    assert!(std::env::var_os("ONLY_HERE").is_none(), "the process is left as it was");
    assert!(Env::load(&dir.path().join("nowhere")).is_ok(), "without .env there is no error");
}

proptest! {
    #[test]
    fn a_quoted_dotenv_value_reads_back(
        key in "[A-Za-z_][A-Za-z0-9_]{0,12}",
        value in "[^\u{0}]{0,40}",
        export: bool,
        padding in "[ \t]{0,3}",
    ) {
        let mut quoted = String::new();
        for c in value.chars() {
            match c {
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '"' | '\\' | '$' => quoted.extend(['\\', c]),
                c => quoted.push(c),
            }
        }
        let export = if export { "export " } else { "" };
        let line = format!("{padding}{export}{key}{padding}={padding}\"{quoted}\"{padding}# end\n");
        let env = Env::merged([], &line).unwrap();
        prop_assert_eq!(env.get(&key), Some(value.as_str()));
    }

    #[test]
    fn any_dotenv_and_any_file_give_a_value_or_a_message(
        text in "([A-Za-z_]{0,5}[:=\\[\\]{}'\"#& *|\\-\n\t]{0,3}){0,12}",
    ) {
        if let Err(e) = Env::merged([], &text) {
            prop_assert!(e.to_string().contains(".env:"));
        }
        if let Err(e) = from_file(&text) {
            prop_assert!(e.to_string().contains("watchbell.yaml"), "{}", e);
        }
    }

    #[test]
    fn a_duration_is_written_exactly(ms in 0_i64..10_000_000_000) {
        let text = Length(Millis(ms)).exact();
        prop_assert_eq!(Millis::parse(&text), Ok(Millis(ms)));
    }

    #[test]
    fn the_proposed_window_lengths_are_valid(seconds in 1_i64..200_000) {
        let text = format!("market: {{ windows: [{seconds}s], history: 30d }}\n");
        if let Err(e) = from_file(&text) {
            let message = e.to_string();
            let tail = message.split_once("the nearest").unwrap().1;
            let tail = tail.lines().next().unwrap();
            let lengths = tail.trim_start_matches(" is ").trim_start_matches(" are ");
            for length in lengths.split(" and ") {
                let fixed = format!("market: {{ windows: [{length}], history: 30d }}\n");
                prop_assert!(from_file(&fixed).is_ok(), "{}", length);
            }
        }
    }
}

const PROGRAMS: &str = r#"
profiles:
  mine: [fetch, exec-reaper]
workers:
  fetch:
    type: exec
    command: [python3, fetch.py, "--all"]
    dir: scripts
    env: { API_KEY: hunter2 }
    env_allow: [AWS_PROFILE]
    trigger: stream
    on_orphan: adopt
    needs: [market-sync]
    log: { max_mib: 1, keep: 2 }
  report:
    type: exec
    shell: "./report | mail ops"
    trigger: { cron: "0 6 * * 1-5", time_zone: Europe/Berlin }
    soft_timeout: 1m
  often:
    type: exec
    shell: date
    every: 15s
  hours:
    type: exec
    shell: ./window
    trigger:
      window:
        length: 1h
        from: 2026-01-01
        settle: 10s
        scope: [BTCUSDT]
        inputs: [{ cover: "klines:1m", lookback: 5m }, { window: window-sampler-30m }]
  export:
    type: exec
    shell: ./export
    trigger:
      queue:
        kinds:
          export: { schema: export.json, timeout: 5m, rate: { count: 10, per: 1m } }
          tidy:
        concurrency: 4
  react:
    type: exec
    shell: ./react
    trigger: { on: [window.completed, "scan.*"] }
"#;

fn with_programs() -> Config {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("watchbell.yaml"), PROGRAMS).unwrap();
    std::fs::write(dir.path().join("export.json"), r#"{"type": "object"}"#).unwrap();
    let dir = dir.path().to_owned();
    let (env, overrides) = (Env::default(), Overrides::default());
    let sources = Sources { dir, file: None, env: &env, overrides, catalog: &catalog };
    Config::load(&sources).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn programs_are_workers_like_any_other() {
    let config = with_programs();
    let definitions = config.programs.iter().map(|p| p.definition.clone());
    let all = definitions.chain(definitions_of_the_house()).collect();
    let all = config.apply_overrides(all).unwrap_or_else(|e| panic!("{e}"));
    let shown: Vec<String> =
        all[..6].iter().map(|d| format!("{}: {}", d.name, d.trigger)).collect();
    assert_eq!(
        shown,
        [
            "export: queue export, tidy x4",
            "fetch: stream",
            "hours: window 1h",
            "often: every 15s",
            "react: on window.completed, scan.*",
            "report: cron 0 6 * * 1-5 Europe/Berlin",
        ]
    );
    let of = |name: &str| config.programs.iter().find(|p| p.definition.name.as_str() == name);
    let fetch = of("fetch").unwrap();
    assert_eq!(fetch.spec.command, ["python3", "fetch.py", "--all"]);
    assert!(fetch.spec.dir.as_ref().unwrap().ends_with("scripts"));
    assert_eq!(fetch.spec.log.max_bytes, 1 << 20);
    assert_eq!(fetch.definition.description, "Runs `python3 fetch.py --all`.");
    let hours = of("hours").unwrap();
    assert_eq!(hours.spec.scope, ["BTCUSDT"]);
    assert_eq!(hours.spec.first_window.unwrap().rfc3339(), "2026-01-01T00:00:00Z");
    let Trigger::Queue(queue) = &of("export").unwrap().definition.trigger else { panic!() };
    assert_eq!(queue.kinds[0].schema, Some(serde_json::json!({ "type": "object" })));
    assert_eq!(queue.kinds[0].timeout, Some(Millis::from_mins(5)));
    // They are part of the profiles that hold everything, and so is what looks after them.
    for name in ["fetch", "exec-reaper"] {
        assert!(config.profile.workers.contains(&WorkerName::from(name)), "{name}");
    }
    assert_eq!(config.raw.profiles["mine"].len(), 2);
}

fn definitions_of_the_house() -> Vec<Definition> {
    let market = &ok("").market;
    known(market).workers.into_iter().map(|n| Definition::new(n, Trigger::Manual)).collect()
}

#[test]
fn what_a_program_is_told_is_not_shown() {
    let config = with_programs();
    let shown = config.render(true);
    assert!(shown.contains("API_KEY: ***"), "{shown}");
    for text in [shown, config.effective(true).to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(config.render(false).contains("hunter2"));
}
