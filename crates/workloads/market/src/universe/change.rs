//! A change of the universe: planned as a value, from the rows as they are, and written in one
//! commit (section 1.1).
//!
//! What a person decided is kept in `metadata`: `disabled_by` says who disabled a symbol, `source`
//! who put it there. The configuration governs the rows that it put there, and the validation enables
//! only what the validation disabled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchbell_core::{Commit, Expect, Millis, Statement, Time, values};
use watchbell_db::{Database, DbError};

use super::symbol::{UnknownSymbol, split};
use super::{BASE, UNIVERSE_CHANGED};

/// How much history a symbol gets that is added while the universe has none to go by.
const FIRST_HISTORY: Millis = Millis::from_hours(24);

/// Who changes the universe, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// The configuration, at a start.
    Config,
    /// A person, by a job.
    User,
    /// A person, by a synchronisation with the venue.
    Binance,
    /// The validation.
    Auto,
}

impl By {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::User => "user",
            Self::Binance => "binance",
            Self::Auto => "auto",
        }
    }
}

/// The free part of a row of the universe. Keys that are not known here are kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// Who put the symbol there: `config`, `user`, `binance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Who disabled it: `auto`, or a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disabled_by: Option<String>,
    /// Why it is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// When the venue last confirmed it.
    #[serde(rename = "syncedAt", skip_serializing_if = "Option::is_none")]
    pub(crate) synced_at: Option<Time>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Metadata {
    fn is_from(&self, by: By) -> bool {
        self.source.as_deref() == Some(by.as_str())
    }

    fn enabled_by(&mut self, by: By) {
        if by != By::Auto {
            self.source = Some(by.as_str().to_owned());
        }
        self.disabled_by = None;
        self.reason = None;
    }

    fn disabled(&mut self, by: By, reason: Option<&str>) {
        let who = match by {
            By::Config => None,
            // Whoever asks the venue decides no less than whoever names the symbols.
            By::User | By::Binance => Some(By::User.as_str().to_owned()),
            By::Auto => Some(By::Auto.as_str().to_owned()),
        };
        self.disabled_by = who;
        self.reason = reason.map(str::to_owned);
    }
}

/// A symbol of the universe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) symbol: Arc<str>,
    pub(crate) enabled: bool,
    pub(crate) sort_order: Option<i64>,
    pub(crate) base: String,
    pub(crate) quote: String,
    pub(crate) metadata: Metadata,
}

impl Entry {
    /// Whether the validation disabled it, and may enable it again.
    pub(crate) fn is_auto_disabled(&self) -> bool {
        !self.enabled && self.metadata.disabled_by.as_deref() == Some(By::Auto.as_str())
    }
}

/// A pair of coins that the venue lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Pair {
    pub(crate) symbol: String,
    pub(crate) base: String,
    pub(crate) quote: String,
}

/// What is to become of the universe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wish {
    /// Exactly these of the symbols that the configuration governs, in this order.
    Configure(Vec<String>),
    /// These too.
    Enable(Vec<String>),
    /// These not.
    Disable(Vec<String>),
    /// These, and with `auto_disable` no others.
    Set { symbols: Vec<String>, auto_disable: bool },
    /// These pairs, as the venue lists them, and with `disable_missing` no others.
    Venue { pairs: Vec<Pair>, disable_missing: bool, at: Time },
    /// What the validation found, with its reasons.
    Validated { enable: Vec<Arc<str>>, disable: Vec<(Arc<str>, String)> },
}

/// Why a wish cannot be met. Nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WishError {
    /// A symbol cannot be split.
    #[error(transparent)]
    Symbol(#[from] UnknownSymbol),
    /// A symbol to disable is not there.
    #[error("the universe has no symbol `{0}`: `universe.enable` adds one")]
    Absent(String),
}

/// One row before and after.
#[derive(Debug, Clone, PartialEq)]
struct Write {
    before: Option<Entry>,
    after: Entry,
}

/// What a wish comes down to.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Plan {
    writes: Vec<Write>,
    /// Symbols that join, in the wish's order.
    pub(crate) enabled: Vec<Arc<str>>,
    /// Symbols that leave, in the universe's order.
    pub(crate) disabled: Vec<Arc<str>>,
    /// Rows that are new.
    pub(crate) inserted: usize,
    /// Rows that are there and change.
    pub(crate) updated: usize,
}

/// The universe as it is: all rows, in processing order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Universe {
    pub(crate) entries: Vec<Entry>,
    /// The stored text of each row's metadata, which guards its change.
    texts: BTreeMap<Arc<str>, String>,
    /// Base and quote asset of symbols that the market knows.
    assets: BTreeMap<Arc<str>, (String, String)>,
    /// Whether nothing of it was ever recorded.
    is_new: bool,
    /// Where the history of its candles begins.
    history_from: Option<Time>,
}

impl Universe {
    pub(crate) async fn load(db: &Database) -> Result<Self, DbError> {
        let snapshot = db.snapshot().await?;
        let rows = snapshot
            .query(
                "select symbol, enabled, sort_order, base_asset, quote_asset, metadata
                 from settings.coin_universe
                 order by sort_order is null, sort_order, symbol /*pg*/ collate \"C\" /*end*/",
                Vec::new(),
            )
            .await?;
        let mut universe = Self::default();
        for row in &rows {
            let symbol = row.shared_text(0)?;
            // A text that says something else than we do was written by a person.
            let metadata = serde_json::from_str(row.text(5)?).unwrap_or_default();
            universe.texts.insert(Arc::clone(&symbol), row.text(5)?.to_owned());
            universe.entries.push(Entry {
                symbol,
                enabled: row.bool(1)?,
                sort_order: row.opt_i64(2)?,
                base: row.text(3)?.to_owned(),
                quote: row.text(4)?.to_owned(),
                metadata,
            });
        }
        let assets = snapshot
            .query("select symbol, base_asset, quote_asset from market.symbols", Vec::new())
            .await?;
        for row in &assets {
            let halves = (row.text(1)?.to_owned(), row.text(2)?.to_owned());
            universe.assets.insert(row.shared_text(0)?, halves);
        }
        let changes = snapshot
            .query_one("select count(*) from settings.universe_changes", Vec::new())
            .await?;
        universe.is_new = changes.i64(0)? == 0;
        let oldest = snapshot
            .query_one(
                "select min(wanted_from) from ingest.klines_cursor where window_label = $1",
                values![BASE],
            )
            .await?;
        universe.history_from = oldest.opt_time(0)?;
        Ok(universe)
    }

    /// The enabled symbols, in processing order.
    pub(crate) fn enabled(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.enabled)
    }

    /// Base and quote asset of a symbol: by its row, by the market's, by its name.
    fn halves(&self, symbol: &str) -> Result<(String, String), UnknownSymbol> {
        if let Some(known) = self.assets.get(symbol) {
            return Ok(known.clone());
        }
        split(symbol).map(|(base, quote)| (base.to_owned(), quote.to_owned()))
    }

    /// What has to change for `wish`. Pure.
    pub(crate) fn plan(&self, wish: &Wish) -> Result<Plan, WishError> {
        let mut draft = Draft::new(self);
        match wish {
            Wish::Configure(symbols) => draft.configure(symbols)?,
            Wish::Enable(symbols) => draft.enable_all(symbols, By::User)?,
            Wish::Disable(symbols) => {
                for symbol in symbols {
                    if !draft.rows.contains_key(symbol.as_str()) {
                        return Err(WishError::Absent(symbol.clone()));
                    }
                    draft.disable(symbol, By::User, None);
                }
            }
            Wish::Set { symbols, auto_disable } => {
                draft.enable_all(symbols, By::User)?;
                if *auto_disable {
                    let wanted = symbols.iter().map(String::as_str).collect();
                    draft.disable_others(&wanted, By::User, "not in the set that was asked for");
                }
            }
            Wish::Venue { pairs, disable_missing, at } => {
                for pair in pairs {
                    let halves = (pair.base.clone(), pair.quote.clone());
                    draft.enable(&pair.symbol, By::Binance, halves);
                    draft.confirm(&pair.symbol, *at);
                }
                if *disable_missing {
                    let wanted = pairs.iter().map(|p| p.symbol.as_str()).collect();
                    draft.disable_others(&wanted, By::Binance, "not among the synchronised pairs");
                }
            }
            Wish::Validated { enable, disable } => {
                for symbol in enable {
                    let may =
                        self.entries.iter().any(|e| e.symbol == *symbol && e.is_auto_disabled());
                    if may {
                        draft.revive(symbol);
                    }
                }
                for (symbol, reason) in disable {
                    draft.disable(symbol, By::Auto, Some(reason));
                }
            }
        }
        Ok(draft.finish())
    }
}

/// The rows of a plan in the making.
struct Draft<'a> {
    universe: &'a Universe,
    rows: BTreeMap<Arc<str>, Entry>,
    /// New symbols, in the order in which they were asked for.
    added: Vec<Arc<str>>,
    next_order: i64,
}

impl<'a> Draft<'a> {
    fn new(universe: &'a Universe) -> Self {
        let rows: BTreeMap<_, _> =
            universe.entries.iter().map(|e| (Arc::clone(&e.symbol), e.clone())).collect();
        let last = universe.entries.iter().filter_map(|e| e.sort_order).max();
        Self { universe, rows, added: Vec::new(), next_order: last.unwrap_or(0) + 10 }
    }

    fn configure(&mut self, symbols: &[String]) -> Result<(), WishError> {
        let wanted: BTreeSet<&str> = symbols.iter().map(String::as_str).collect();
        let dropped = self.rows.values_mut().filter(|e| {
            e.metadata.is_from(By::Config)
                && !wanted.contains(&*e.symbol)
                && (e.enabled || e.is_auto_disabled())
        });
        for entry in dropped {
            entry.enabled = false;
            entry.metadata.disabled(By::Config, None);
        }
        for (i, symbol) in symbols.iter().enumerate() {
            let order = Some((i as i64 + 1) * 10);
            match self.rows.get_mut(symbol.as_str()) {
                Some(entry) => {
                    entry.sort_order = order;
                    let governed = entry.metadata.is_from(By::Config);
                    if governed && entry.metadata.disabled_by.is_none() {
                        entry.enabled = true;
                    }
                }
                None => {
                    let halves = self.universe.halves(symbol)?;
                    self.enable(symbol, By::Config, halves);
                    if let Some(entry) = self.rows.get_mut(symbol.as_str()) {
                        entry.sort_order = order;
                    }
                }
            }
        }
        Ok(())
    }

    fn enable_all(&mut self, symbols: &[String], by: By) -> Result<(), WishError> {
        for symbol in symbols {
            let halves = match self.rows.get(symbol.as_str()) {
                Some(entry) => (entry.base.clone(), entry.quote.clone()),
                None => self.universe.halves(symbol)?,
            };
            self.enable(symbol, by, halves);
        }
        Ok(())
    }

    /// Enables a symbol; one that is enabled already stays as it is.
    fn enable(&mut self, symbol: &str, by: By, (base, quote): (String, String)) {
        if let Some(entry) = self.rows.get_mut(symbol) {
            if !entry.enabled {
                entry.enabled = true;
                entry.metadata.enabled_by(by);
            }
            return;
        }
        let name: Arc<str> = Arc::from(symbol);
        let mut metadata = Metadata::default();
        metadata.enabled_by(by);
        let entry = Entry {
            symbol: Arc::clone(&name),
            enabled: true,
            sort_order: Some(self.next_order),
            base,
            quote,
            metadata,
        };
        self.next_order += 10;
        self.added.push(Arc::clone(&name));
        self.rows.insert(name, entry);
    }

    fn confirm(&mut self, symbol: &str, at: Time) {
        if let Some(entry) = self.rows.get_mut(symbol) {
            entry.metadata.source = Some(By::Binance.as_str().to_owned());
            entry.metadata.synced_at = Some(at);
        }
    }

    fn revive(&mut self, symbol: &str) {
        if let Some(entry) = self.rows.get_mut(symbol) {
            entry.enabled = true;
            entry.metadata.enabled_by(By::Auto);
        }
    }

    /// Disables a symbol. A person's word also counts where the validation was faster.
    fn disable(&mut self, symbol: &str, by: By, reason: Option<&str>) {
        let Some(entry) = self.rows.get_mut(symbol) else { return };
        if entry.enabled
            || (by != By::Auto && entry.metadata.disabled_by.as_deref() != Some("user"))
        {
            entry.enabled = false;
            entry.metadata.disabled(by, reason);
        }
    }

    fn disable_others(&mut self, wanted: &BTreeSet<&str>, by: By, reason: &str) {
        let others: Vec<Arc<str>> = self
            .rows
            .values()
            .filter(|e| e.enabled && !wanted.contains(&*e.symbol))
            .map(|e| Arc::clone(&e.symbol))
            .collect();
        for symbol in others {
            self.disable(&symbol, by, Some(reason));
        }
    }

    fn finish(mut self) -> Plan {
        let mut plan = Plan::default();
        for before in &self.universe.entries {
            let Some(after) = self.rows.remove(&before.symbol) else { continue };
            if after == *before {
                continue;
            }
            plan.updated += 1;
            match (before.enabled, after.enabled) {
                (false, true) => plan.enabled.push(Arc::clone(&after.symbol)),
                (true, false) => plan.disabled.push(Arc::clone(&after.symbol)),
                _ => {}
            }
            plan.writes.push(Write { before: Some(before.clone()), after });
        }
        for symbol in self.added {
            let Some(after) = self.rows.remove(&symbol) else { continue };
            plan.inserted += 1;
            plan.enabled.push(symbol);
            plan.writes.push(Write { before: None, after });
        }
        plan
    }
}

impl Plan {
    /// Whether some symbol joins or leaves.
    pub(crate) fn moves(&self) -> bool {
        !self.enabled.is_empty() || !self.disabled.is_empty()
    }

    /// Adds all that the plan writes to `commit`: rows, history, cursors, the mirror, and the event.
    /// The first universe of all reaches back to the beginning of time; every later change counts from
    /// `now` on.
    ///
    /// # Errors
    /// When metadata cannot be written as JSON, which it always can.
    pub(crate) fn write(
        &self,
        universe: &Universe,
        by: By,
        now: Time,
        commit: &mut Commit,
    ) -> Result<(), serde_json::Error> {
        let since = if universe.is_new { Time::EPOCH } else { now };
        let from = universe.history_from.unwrap_or(now - FIRST_HISTORY);
        for Write { before, after } in &self.writes {
            commit.push(self.row(universe, before.as_ref(), after, now)?);
            let was = before.as_ref().map(|b| (b.enabled, b.sort_order));
            let moved = was.is_none_or(|(enabled, order)| {
                enabled != after.enabled || (after.enabled && order != after.sort_order)
            });
            if moved {
                commit.push(Statement::new(
                    "insert into settings.universe_changes
                       (symbol, at, enabled, sort_order, by_whom, reason)
                     values ($1, $2, $3, $4, $5, $6)",
                    values![
                        Arc::clone(&after.symbol),
                        since,
                        after.enabled,
                        after.sort_order,
                        by.as_str(),
                        after.metadata.reason.clone(),
                    ],
                ));
            }
            if after.enabled {
                commit.push(cursor(&after.symbol, from, now));
            }
        }
        if !self.moves() {
            return Ok(());
        }
        commit.statements.extend(mirror(now));
        if by != By::Config {
            commit.emit(
                UNIVERSE_CHANGED,
                "universe",
                serde_json::json!({
                    "by": by, "at": now, "enabled": self.enabled, "disabled": self.disabled,
                }),
            );
        }
        Ok(())
    }

    /// The row as it is to be, if it still is as it was: of two who change it at once, the second
    /// looks again. Only starts may meet, and they wish the same.
    fn row(
        &self,
        universe: &Universe,
        before: Option<&Entry>,
        after: &Entry,
        now: Time,
    ) -> Result<Statement, serde_json::Error> {
        let mut row = values![
            Arc::clone(&after.symbol),
            after.enabled,
            after.sort_order,
            after.base.as_str(),
            after.quote.as_str(),
            serde_json::to_string(&after.metadata)?,
            now,
        ];
        let Some(before) = before else {
            return Ok(Statement::new(
                "insert into settings.coin_universe
                   (symbol, enabled, sort_order, base_asset, quote_asset, metadata, updated_at)
                 values ($1, $2, $3, $4, $5, $6, $7)
                 on conflict (symbol) do update set updated_at = excluded.updated_at
                   where settings.coin_universe.enabled = excluded.enabled",
                row,
            )
            .expect(Expect::Exactly(1)));
        };
        row.extend(values![before.enabled, universe.texts.get(&before.symbol).cloned()]);
        Ok(Statement::new(
            "update settings.coin_universe set enabled = $2, sort_order = $3, base_asset = $4,
               quote_asset = $5, metadata = $6, updated_at = $7
             where symbol = $1 and enabled = $8 and cast(metadata as {text}) = $9",
            row,
        )
        .expect(Expect::Exactly(1)))
    }
}

/// The cursor of a symbol's candles; one that is there stays.
pub(super) fn cursor(symbol: &Arc<str>, from: Time, now: Time) -> Statement {
    Statement::new(
        "insert into ingest.klines_cursor (symbol, window_label, wanted_from, updated_at)
         values ($1, $2, $3, $4)
         on conflict (symbol, window_label) do nothing",
        values![Arc::clone(symbol), BASE, from, now],
    )
}

/// Brings `market.symbols` to the universe: enabled symbols are `TRADING`, all others `OFF`.
pub(crate) fn mirror(now: Time) -> [Statement; 2] {
    [
        Statement::new(
            "insert into market.symbols (symbol, base_asset, quote_asset, status, updated_at)
             select symbol, base_asset, quote_asset,
                    case when enabled = 1 then 'TRADING' else 'OFF' end, $1
             from settings.coin_universe where true
             on conflict (symbol) do update set
               status = excluded.status, updated_at = excluded.updated_at
             where market.symbols.status <> excluded.status",
            values![now],
        ),
        Statement::new(
            "update market.symbols set status = 'OFF', updated_at = $1
             where status <> 'OFF'
               and symbol not in (select symbol from settings.coin_universe)",
            values![now],
        ),
    ]
}

/// How many symbols of the market have not the status that [`mirror`] gives them.
pub(crate) async fn unmirrored(db: &Database) -> Result<i64, DbError> {
    let row = db
        .query_one(
            "select
               (select count(*) from settings.coin_universe u
                left join market.symbols m on m.symbol = u.symbol
                where m.symbol is null
                  or m.status <> case when u.enabled = 1 then 'TRADING' else 'OFF' end)
               + (select count(*) from market.symbols
                  where status <> 'OFF'
                    and symbol not in (select symbol from settings.coin_universe))",
            Vec::new(),
        )
        .await?;
    row.i64(0)
}

/// What clients asked for, through time (section 1.2): the newest request at an instant holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Requests(Vec<(Time, Option<BTreeSet<String>>)>);

impl Requests {
    pub(crate) async fn load(db: &Database) -> Result<Self, DbError> {
        let rows = db
            .query("select at, symbols from settings.universe_requests order by at, id", Vec::new())
            .await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            let listed = row.opt_json(1)?;
            let symbols = listed.and_then(|s| serde_json::from_value(s).ok());
            all.push((row.time(0)?, symbols));
        }
        Ok(Self(all))
    }

    /// The set that holds at an instant; `None` asks for everything.
    pub(crate) fn at(&self, at: Time) -> Option<&BTreeSet<String>> {
        let until = self.0.partition_point(|(t, _)| *t <= at);
        self.0[..until].last().and_then(|(_, symbols)| symbols.as_ref())
    }

    /// Whether a symbol is asked for at an instant.
    pub(crate) fn include(&self, symbol: &str, at: Time) -> bool {
        self.at(at).is_none_or(|symbols| symbols.contains(symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(symbol: &str, enabled: bool, metadata: serde_json::Value) -> Entry {
        let (base, quote) = split(symbol).unwrap();
        Entry {
            symbol: symbol.into(),
            enabled,
            sort_order: Some(10),
            base: base.into(),
            quote: quote.into(),
            metadata: serde_json::from_value(metadata).unwrap(),
        }
    }

    fn universe(entries: Vec<Entry>) -> Universe {
        Universe { entries, ..Universe::default() }
    }

    fn after(universe: &Universe, plan: &Plan, symbol: &str) -> serde_json::Value {
        let written = plan.writes.iter().map(|w| &w.after).find(|e| &*e.symbol == symbol);
        let entry = written.or_else(|| universe.entries.iter().find(|e| &*e.symbol == symbol));
        let mut json = serde_json::to_value(&entry.unwrap().metadata).unwrap();
        json["enabled"] = entry.unwrap().enabled.into();
        json
    }

    #[test]
    fn the_configuration_governs_what_it_put_there_and_nothing_else() {
        use serde_json::json;
        let u = universe(vec![
            entry("BTCUSDT", true, json!({"source": "config"})),
            entry("ETHUSDT", false, json!({"source": "config"})),
            entry("BNBUSDT", false, json!({"source": "config", "disabled_by": "user"})),
            entry(
                "SOLUSDT",
                false,
                json!({"source": "config", "disabled_by": "auto", "reason": "HALTED"}),
            ),
            entry("ADAUSDT", true, json!({"source": "user"})),
            entry("XRPUSDT", true, json!({"source": "config"})),
            entry("TRXUSDT", false, json!({"source": "config", "disabled_by": "auto"})),
        ]);
        let list = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "DOGEUSDT"].map(str::to_owned);
        let plan = u.plan(&Wish::Configure(list.to_vec())).unwrap();
        for (symbol, expected) in [
            ("BTCUSDT", json!({"source": "config", "enabled": true})),
            ("ETHUSDT", json!({"source": "config", "enabled": true})),
            ("BNBUSDT", json!({"source": "config", "disabled_by": "user", "enabled": false})),
            (
                "SOLUSDT",
                json!({"source": "config", "disabled_by": "auto", "reason": "HALTED", "enabled": false}),
            ),
            ("ADAUSDT", json!({"source": "user", "enabled": true})),
            ("XRPUSDT", json!({"source": "config", "enabled": false})),
            ("TRXUSDT", json!({"source": "config", "enabled": false})),
            ("DOGEUSDT", json!({"source": "config", "enabled": true})),
        ] {
            assert_eq!(after(&u, &plan, symbol), expected, "{symbol}");
        }
        assert_eq!(plan.enabled, ["ETHUSDT".into(), "DOGEUSDT".into()]);
        assert_eq!(plan.disabled, ["XRPUSDT".into()]);
        assert_eq!(plan.inserted, 1);
    }

    #[test]
    fn a_persons_word_is_kept() {
        use serde_json::json;
        let u = universe(vec![
            entry("BTCUSDT", true, json!({"source": "config", "note": "kept"})),
            entry("ETHUSDT", false, json!({"source": "config", "disabled_by": "auto"})),
            entry("SOLUSDT", false, json!({"source": "config"})),
        ]);
        let names = |s: &[&str]| s.iter().map(ToString::to_string).collect::<Vec<_>>();
        let plan = u.plan(&Wish::Disable(names(&["BTCUSDT", "ETHUSDT"]))).unwrap();
        let by_user = json!({
            "source": "config", "note": "kept", "disabled_by": "user", "enabled": false,
        });
        assert_eq!(after(&u, &plan, "BTCUSDT"), by_user);
        assert_eq!(after(&u, &plan, "ETHUSDT")["disabled_by"], "user");
        assert_eq!(plan.disabled, ["BTCUSDT".into()], "the other was out before");

        // What the validation wishes: only its own is enabled again.
        let revive = |symbol: &str| {
            let wish = Wish::Validated { enable: vec![symbol.into()], disable: vec![] };
            u.plan(&wish).unwrap().enabled
        };
        assert_eq!(revive("ETHUSDT"), ["ETHUSDT".into()]);
        assert_eq!(revive("SOLUSDT"), [] as [Arc<str>; 0]);

        let plan = u.plan(&Wish::Enable(names(&["SOLUSDT", "BTCUSDT", "ETHBTC"]))).unwrap();
        assert_eq!(plan.enabled, ["SOLUSDT".into(), "ETHBTC".into()]);
        assert_eq!(after(&u, &plan, "SOLUSDT"), json!({"source": "user", "enabled": true}));
        assert_eq!((plan.inserted, plan.updated), (1, 1));
        assert_eq!(plan.writes.last().unwrap().after.sort_order, Some(20));

        let set = Wish::Set { symbols: names(&["SOLUSDT"]), auto_disable: true };
        let plan = u.plan(&set).unwrap();
        assert_eq!(
            (&*plan.enabled, &*plan.disabled),
            (&["SOLUSDT".into()][..], &["BTCUSDT".into()][..])
        );
        for (wish, says) in [
            (Wish::Disable(names(&["XRPUSDT"])), "the universe has no symbol `XRPUSDT`"),
            (Wish::Enable(names(&["ABCXYZ"])), "cannot split the symbol `ABCXYZ`"),
        ] {
            let refused = u.plan(&wish).unwrap_err().to_string();
            assert!(refused.starts_with(says), "{refused}");
        }
    }

    #[test]
    fn the_market_knows_the_halves_of_a_symbol_that_its_name_does_not_tell() {
        let mut u = universe(vec![]);
        u.assets.insert("ABCXYZ".into(), ("ABC".into(), "XYZ".into()));
        let plan = u.plan(&Wish::Enable(vec!["ABCXYZ".into()])).unwrap();
        assert_eq!(plan.writes[0].after.quote, "XYZ");
    }

    #[test]
    fn the_newest_request_at_an_instant_holds() {
        let set = |s: &str| Some(BTreeSet::from([s.to_owned()]));
        let requests = Requests(vec![(Time(10), set("A")), (Time(20), None), (Time(30), set("B"))]);
        let asked = |symbol: &str| [5, 10, 25, 30].map(|at| requests.include(symbol, Time(at)));
        assert_eq!(asked("A"), [true, true, true, false]);
        assert_eq!(asked("B"), [true, false, true, true]);
    }
}
