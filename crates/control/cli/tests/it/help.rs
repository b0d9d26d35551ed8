//! The tree of commands.

use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};
use watchbell_cli::args::{DbCommand, UpMode};
use watchbell_cli::{Cli, Task, completions};

use crate::golden;

#[test]
fn the_tree_is_well_formed() {
    Cli::command().debug_assert();
}

/// Every command's help, in the order of the tree.
#[test]
fn help_is_as_reviewed() {
    fn walk(command: &mut clap::Command, path: &str, text: &mut String) {
        text.push_str(&format!("$ {path} --help\n"));
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&lines.join("\n"));
        text.push_str("\n\n");
        let names: Vec<String> =
            command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            let sub = command.find_subcommand_mut(&name).unwrap();
            walk(sub, &format!("{path} {name}"), text);
        }
    }
    let mut tree = Cli::command();
    tree.build();
    let mut text = String::new();
    walk(&mut tree, "watchbell", &mut text);
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "too wide for a terminal: {line}");
    }
    golden::check("help.txt", &format!("{}\n", text.trim_end()));
}

#[test]
fn every_command_of_the_design_is_there() {
    let commands = "demo,up,run-all,status,worker list,worker show,worker start,worker stop,worker \
                    pause,worker resume,worker restart,run,schedule list,schedule run,schedule \
                    start,schedule status,window list,window show,window verify,window \
                    backfill,window retry,window abandon,event list,event tail,event emit,job enqueue,job list,job show,job \
                    cancel,job retry,job redrive,job purge,job kinds,job stats,node list,explain,db \
                    migrate,db check,db backup,db restore,db move,config check,config show,config \
                    schema,venue-sim,completions";
    let wanted: BTreeSet<&str> = commands.split(',').collect();
    let tree = Cli::command();
    let mut found = BTreeSet::new();
    for command in tree.get_subcommands() {
        assert!(command.get_about().is_some(), "{} says what it does", command.get_name());
        let mut leaf = true;
        for sub in command.get_subcommands() {
            leaf = false;
            assert!(sub.get_about().is_some(), "{} says what it does", sub.get_name());
            found.insert(format!("{} {}", command.get_name(), sub.get_name()));
        }
        if leaf {
            found.insert(command.get_name().to_owned());
        }
    }
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, wanted);
}

fn parse(line: &str) -> Result<Cli, String> {
    let words = std::iter::once("watchbell").chain(line.split_whitespace());
    Cli::try_parse_from(words).map_err(|e| {
        assert_eq!(e.exit_code(), 2, "{line}");
        e.to_string()
    })
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    for (line, said) in [
        ("statsu", "a similar subcommand exists: 'status'"),
        ("window list --state done", "possible values: open, ready, running, complete"),
        ("window list --failed --state open", "cannot be used with"),
        ("window abandon window-sampler-30m 0", "--reason <TEXT>"),
        ("window list --from noon", "is not an instant: use RFC 3339"),
        ("window list --limit 0", "is not in 1..=10000"),
        ("window backfill --from 2026-11-01", "--to <TIME>"),
        ("window backfill window-sampler-30m", "--from <TIME>"),
        ("window verify window-sampler-30m 0 --from 2026-11-01", "cannot be used with"),
        ("run window-sampler-30m --window 2026-11-01", "use SERIES/START"),
        ("event emit a --payload {", "it is not JSON"),
        ("demo --speed 0", "above 0"),
        ("demo --speed nan", "above 0"),
        ("demo --no-http --http-port 1", "cannot be used with"),
        ("status -v -q", "cannot be used with"),
        ("worker pause", "<NAMES>..."),
        ("job show seven", "invalid digit"),
        ("job enqueue", "<KIND>"),
        ("job enqueue a {} --file f", "cannot be used with"),
        ("job enqueue a --bulk f", "cannot be used with"),
        ("job enqueue --bulk f --priority 1", "cannot be used with"),
        ("job enqueue a --priority -1", "-1 is not in 0.."),
        ("job enqueue a --max-attempts 0", "0 is not in 1.."),
        ("job enqueue a --unique-in queued", "--key <KEY>"),
        ("job enqueue a --key k --unique-in waiting", "possible values: queued, running"),
        ("job enqueue a --at 2026-11-22 --in 5m", "cannot be used with"),
        ("job enqueue a --in 5", "is not a duration"),
        ("job cancel seven", "invalid digit"),
        ("job cancel 7 --limit 0", "is not in 1..=10000"),
        ("event tail --since 4 --last 3", "cannot be used with"),
        ("venue-sim --bind here", "invalid socket address"),
        ("venue-sim --venue nasdaq", "possible values: binance, kraken, okx, coinbase"),
        ("venue-sim --assets 401", "401 is not in 1..=400"),
        ("venue-sim --assets 3 --klines d", "cannot be used with"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(said), "{line}: {error}");
    }
}

#[test]
fn commands_become_tasks() {
    let task = |line: &str| Task::from(parse(line).unwrap().command);
    assert!(matches!(task("up --watch"), Task::Up(a, UpMode::Up) if a.watch));
    assert!(matches!(task("run-all"), Task::Up(_, UpMode::RunAll)));
    assert!(matches!(task("schedule start --profile p"), Task::Up(_, UpMode::Schedules)));
    assert!(matches!(task("schedule list"), Task::Ask(_)));
    assert!(matches!(
        task("db restore a --force"),
        Task::Db(DbCommand::Restore { force: true, .. })
    ));
    assert!(matches!(task("demo --once --days 3"), Task::Demo(d) if d.once && d.days == Some(3)));
    let faults = task("venue-sim --fault 429=0.1 --fault slow");
    assert!(matches!(faults, Task::VenueSim(v) if v.fault == ["429=0.1", "slow"]));
    let cli = parse("status --data-dir /d --json").unwrap();
    assert!(cli.global.json && cli.global.data_dir.is_some());
}

/// Ctrl-C is their orderly end.
#[test]
fn what_goes_on_until_it_is_interrupted_is_known() {
    for (line, follows) in [
        ("event tail --follow", true),
        ("event tail -f --json", true),
        ("event tail", false),
        ("status --watch", true),
        ("status", false),
        ("run a", false),
    ] {
        let Task::Ask(ask) = Task::from(parse(line).unwrap().command) else { panic!("{line}") };
        assert_eq!(ask.follows(), follows, "{line}");
    }
}

#[test]
fn completions_are_printed() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish]
    {
        let mut text = Vec::new();
        completions::<watchbell_cli::NoMore>(shell, &mut text);
        assert!(String::from_utf8(text).unwrap().contains("venue-sim"), "{shell}");
    }
}
