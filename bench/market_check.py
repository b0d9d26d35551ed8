#!/usr/bin/env python3
"""Recomputes what a store of Watchbell holds of the market, in numpy, and compares.

    python3 bench/market_check.py watchbell-demo/watchbell.db
    python3 bench/market_check.py watchbell-demo/watchbell.db --windows 5000 --labels 30m 1h

Everything is computed again from the stored 1-minute candles alone: histograms, floating modes,
vectors and metrics of each window (by window_stats.py), the seven matrices of each slice, the mood of
each window, and its allocation, which is multiplied by the mood of the window before. Windows of points
are recomputed from their stored points. A number must agree to 1e-9, relative to its size where that
exceeds 1. Exits with 1 when one does not, or when nothing was compared.

It reads a SQLite file, and shares no code with the program that wrote it. With `--time` it computes
and compares nothing: what the same work takes in numpy, without writing any of it.
"""

import argparse
import json
import sqlite3
import sys
import time

from window_stats import differences, np, window_stats

MINUTE, DAY = 60_000, 86_400_000
LENGTHS = {"30m": 30 * MINUTE, "1h": 60 * MINUTE, "3h": 180 * MINUTE}
TYPES = ("benchmark", "pct24h", "id_pct", "pct_drv", "pct_ref", "ref", "delta")
UNIVERSE = "order by u.sort_order is null, u.sort_order, u.symbol"


class Store:
    def __init__(self, path):
        self.db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    def rows(self, sql, *params):
        return self.db.execute(sql, params).fetchall()

    def column(self, sql, *params):
        return [row[0] for row in self.rows(sql, *params)]

    def close_at(self, symbol, open_time):
        found = self.column(
            "select close from ingest_kline_raw where symbol = ? and interval_label = '1m'"
            " and open_time = ?", symbol, open_time)
        return found[0] if found else None

    def first_close(self, symbol, since, before):
        found = self.column(
            "select close from ingest_kline_raw where symbol = ? and interval_label = '1m'"
            " and open_time >= ? and open_time < ? order by open_time limit 1",
            symbol, since, before)
        return found[0] if found else None

    def windows(self, label, limit):
        """The newest windows: start and the newest version."""
        return self.rows(
            "select window_start, max(version) from str_aux_windows where window_label = ?"
            " group by window_start order by window_start desc limit ?", label, limit)

    def members(self, label, start, version):
        return self.rows(
            "select u.symbol, u.base_asset, u.quote_asset, w.source, w.samples,"
            "   s.delta_gfm_pct, s.stats, v.vec, s.last_price"
            " from str_aux_windows w join settings_coin_universe u on u.symbol = w.symbol"
            " join str_aux_window_stats s using (symbol, window_label, window_start, version)"
            " join str_aux_window_vectors v using (symbol, window_label, window_start, version)"
            f" where w.window_label = ? and w.window_start = ? and w.version = ? {UNIVERSE}",
            label, start, version)

    def points(self, symbol, source, start, end):
        if source == "klines":
            rows = self.rows(
                "select close, volume from ingest_kline_raw where symbol = ?"
                " and interval_label = '1m' and open_time >= ? and open_time < ?"
                " order by open_time", symbol, start, end)
        else:
            rows = self.rows(
                "select mid, bid_volume + ask_volume from str_aux_samples_5s where symbol = ?"
                " and ts > ? and ts <= ? and mid is not null order by ts", symbol, start, end)
        return np.array(rows, dtype=float).reshape(-1, 2).T


class History:
    """The candles of a stretch, read once into arrays, with a Store's answers about them."""

    def __init__(self, store, since, until):
        self.since, minutes = since, (until - since) // MINUTE
        self.coins = store.rows(
            "select symbol, base_asset, quote_asset from settings_coin_universe u"
            f" where coalesce(enabled, 1) = 1 {UNIVERSE}")
        self.candles = {}
        for symbol, *_ in self.coins:
            found = np.array(store.rows(
                "select (open_time - ?) / 60000, close, volume from ingest_kline_raw"
                " where symbol = ? and interval_label = '1m' and open_time >= ? and open_time < ?"
                " order by open_time", since, symbol, since, until)).reshape(-1, 3)
            self.candles[symbol] = np.full((2, minutes), np.nan)
            self.candles[symbol][:, found[:, 0].astype(np.int64)] = found[:, 1:].T

    def at(self, time):
        return (time - self.since) // MINUTE

    def members(self, label, start, version):
        length = LENGTHS[label]
        last = self.at(start + length) - 1
        return [(*coin, "klines", length // MINUTE, None, None, None,
                 self.candles[coin[0]][0, last]) for coin in self.coins]

    def points(self, symbol, source, start, end):
        return self.candles[symbol][:, self.at(start):self.at(end)]

    def close_at(self, symbol, open_time):
        found = self.candles[symbol][0, self.at(open_time)]
        return None if np.isnan(found) else found

    def first_close(self, symbol, since, before):
        found = self.candles[symbol][0, self.at(since):self.at(before)]
        known = found[~np.isnan(found)]
        return known[0] if len(known) else None


def compute(store, label, start, version, before, limit):
    """All of one window from candles; returns what the next one looks back on."""
    members = store.members(label, start, version)
    shares = []
    for symbol, *_, source, samples, _, _, _, _ in members:
        stats = window_stats(*store.points(symbol, source, start, start + LENGTHS[label]))
        v = stats["vectors"]
        shares.append((stats["stats"]["delta_gfm_pct"] / 100, v["tendency"]["score"] / 100,
                       v["swap"]["score"] / 100, max(1, samples)))
    mood(shares[:limit])
    coins, grids = matrices(store, label, start, version, start // DAY * DAY, before)
    return coins, grids


def check_window(store, label, start, version):
    """Yields what differs in one window."""
    for symbol, *_, source, samples, delta, stats, vec, last in store.members(label, start, version):
        prices, weights = store.points(symbol, source, start, start + LENGTHS[label])
        if source == "points" and len(prices) != samples:
            continue  # some were filled from trades: those are not points
        ours = window_stats(prices, weights)
        stored, vectors = json.loads(stats), json.loads(vec)
        vectors.pop("schema_version", None)
        theirs = {key: stored[key] for key in ("idhr", "mode", "stats", "intrinsic", "histogram")}
        theirs |= {"samples": samples, "vectors": vectors}
        for text in differences(ours, theirs):
            yield f"{symbol} {text}"
        yield from differences({"last": float(prices[-1])}, {"last": last}, symbol)


def crossed(pairs, n, usdt, prices):
    """Prices between all coins: direct, inverse, or through USDT."""
    grid, leg = np.full((n, n), np.nan), np.full(n, np.nan)
    for (base, quote), price in zip(pairs, prices):
        if price is not None and base != quote:
            grid[base, quote] = price
    inverse = np.isnan(grid) & ~np.isnan(grid.T)
    full = grid.copy()
    full[inverse] = 1 / grid.T[inverse]
    if usdt is not None:
        leg = full[:, usdt].copy()
        leg[usdt] = 1.0
        bridged = leg[:, None] / leg[None, :]
        full = np.where(np.isnan(full), bridged, full)
    np.fill_diagonal(full, np.nan)
    return full


def matrices(store, label, start, version, opening, before):
    """The seven matrices of the end of a window; `before` are those of the slice before."""
    end = start + LENGTHS[label]
    members = store.members(label, start, version)
    coins = []
    if any("USDT" in row[1:3] for row in members):
        coins.append("USDT")
    for _, base, quote, *_ in members:
        coins += [coin for coin in (base, quote) if coin not in coins]
    place, n = {coin: i for i, coin in enumerate(coins)}, len(coins)
    usdt = place.get("USDT")
    pairs = [(place[row[1]], place[row[2]]) for row in members]

    bm = crossed(pairs, n, usdt, [row[-1] for row in members])
    opened = crossed(
        pairs, n, usdt,
        [store.first_close(row[0], opening, end - MINUTE + 1) for row in members])
    change = np.full(n, np.nan)
    if usdt is not None:
        change[usdt] = 0.0
        for row, (base, quote) in zip(members, pairs):
            last = store.close_at(row[0], end - MINUTE)
            first = store.close_at(row[0], end - MINUTE - DAY)
            if last is None or first is None:
                continue
            if quote == usdt:
                change[base] = last / first - 1
            elif base == usdt:
                change[quote] = first / last - 1
    prev_bm, prev_id = np.full((n, n), np.nan), np.full((n, n), np.nan)
    if before is not None:
        old_coins, old = before
        at = [(i, old_coins.index(coin)) for i, coin in enumerate(coins) if coin in old_coins]
        for i, oi in at:
            for j, oj in at:
                prev_bm[i, j], prev_id[i, j] = old["benchmark"][oi, oj], old["id_pct"][oi, oj]
    out = {"benchmark": bm}
    out["pct24h"] = (1 + change[:, None]) / (1 + change[None, :]) - 1
    out["id_pct"] = (bm - prev_bm) / prev_bm
    out["pct_drv"] = out["id_pct"] - prev_id
    out["pct_ref"] = (bm - opened) / opened
    out["ref"] = np.where(np.isnan(out["id_pct"]), 1, 1 + out["id_pct"]) * out["pct_ref"]
    out["delta"] = bm - opened * (1 + out["ref"])
    for grid in out.values():
        np.fill_diagonal(grid, np.nan)
    return coins, out


def check_slice(store, label, ts, version, coins, ours):
    for kind in TYPES:
        for base, cells in store.rows(
            "select base, cells from matrices_rows where series = ? and ts_ms = ? and version = ?"
            " and matrix_type = ?", label, ts, version, kind):
            theirs = np.array(json.loads(cells), dtype=float)
            mine = ours[kind][coins.index(base)]
            bad = np.isnan(mine) != np.isnan(theirs)
            gap = np.abs(mine - theirs) > 1e-9 * np.maximum(1, np.abs(mine))
            for q in np.flatnonzero(bad | gap):
                yield f"{kind} {base}/{coins[q]}: {mine[q]!r} here, {theirs[q]!r} there"


def bucket(value, cuts, letters):
    over = sum(abs(value) > cut for cut in cuts)
    return letters[over + (0 if value >= 0 else len(cuts) + 1)]


DEFAULTS = {"muT": 0.0, "sigmaT": 0.02, "muS": 0.0, "sigmaS": 0.05}


def mood(shares, refs=DEFAULTS):
    """Coefficient and identity from (g, t, v, weight) of each symbol."""
    total = sum(w for *_, w in shares)
    g, t, v = (sum(s[i] * s[3] for s in shares) / total for i in range(3))
    gfm = min(max(1 + 20 * g, 0.8), 1.2)
    v_t = 0.8 + 0.4 * min(max((t - refs["muT"]) / refs["sigmaT"], -1), 1)
    v_s = 0.5 * np.tanh(0.75 * ((v - refs["muS"]) / refs["sigmaS"]))
    coeff = float(min(max(v_t / gfm + v_s, 0.2), 2.0))
    name = bucket(v_t, [1.2 / 6 * i for i in range(1, 6)], "ABCDEFGHIJKL")
    name += bucket(v_s, [0.5 / 6 * i for i in range(1, 6)], "abcdefghijkl")
    over = sum(abs(gfm - 1) > cut for cut in (0.05, 0.10, 0.15))
    return coeff, name + str(over + (0 if gfm >= 1 else 4))


def check_mood(store, label, start, version, limit):
    found = store.rows(
        "select coeff, mood_id, is_fallback, payload from mea_dynamics_moods where window_label = ?"
        " and window_start = ? order by version desc limit 1", label, start)
    if not found or found[0][2]:
        return None
    members = sorted(store.members(label, start, version), key=lambda row: row[2] != "USDT")
    shares = []
    for row in members[:limit]:
        vec = json.loads(row[7])
        shares.append((row[5] / 100, vec["tendency"]["score"] / 100, vec["swap"]["score"] / 100,
                       max(1, row[4])))
    coeff, name = mood(shares, json.loads(found[0][3])["refs"])
    ours, theirs = {"coeff": coeff, "id": name}, {"coeff": found[0][0], "id": found[0][1]}
    return list(differences(ours, theirs, ".mood"))


# Where each tier of |id_pct| begins, and its weight; and the ranks of 2 * mean weight / 1.15 - 1.
TIERS = ((0.0, 0.0), (0.00016, 0.15), (0.00033, 0.55), (0.00046, 1.15), (0.00077, 0.65), (0.00121, 0.5))
RANKS = ((-0.75, "E"), (-0.5, "D"), (-0.25, "C"))


def rank(x):
    for cut, name in RANKS:
        if x <= cut:
            return name
    return "B" if x < 0.25 else "A" if x < 0.5 else "S"


def check_allocation(store, label, start, coins, grids):
    """The newest allocation of a window from its matrices and the mood of the window before."""
    found = store.rows(
        "select cycle_id, balance_source, k, mood_coeff from mea_dynamics_cycles"
        " where window_label = ? and window_start = ? order by version desc limit 1", label, start)
    if not found:
        return None
    cycle, source, k, coeff = found[0]
    before = store.rows(
        "select coeff from mea_dynamics_moods where window_label = ? and window_start < ?"
        " order by window_start desc, version desc limit 1", label, start)
    said = list(differences({"mood": before[0][0] if before else 0.8}, {"mood": coeff}, ".mea"))
    version = store.column(
        "select max(version) from matrices_slices where series = ? and ts_ms = ?",
        label, start + LENGTHS[label])[0]
    frozen = dict(store.rows(
        "select base, frozen from matrices_flags where series = ? and ts_ms = ? and version = ?",
        label, start + LENGTHS[label], version))
    bm, moved = grids["benchmark"], np.abs(grids["id_pct"])
    weights = np.zeros_like(moved)
    for cut, weight in TIERS:
        weights[moved >= cut] = weight
    for coin, cells, components, value, tier in store.rows(
        "select coin, cells, components, mea_value, tier from mea_dynamics_mea_symbol"
        " where cycle_id = ?", cycle):
        b = coins.index(coin)
        balance = json.loads(components)["balance"]
        if source == "equal":
            price = 1.0 if coin == "USDT" else float(bm[b, coins.index("USDT")])
            ours = 0.0 if np.isnan(price) else 1000 / price
            said += differences({"balance": ours}, {"balance": balance}, f".mea.{coin}")
        weight = np.where(np.array(json.loads(frozen[coin])) > 0, 0.0, weights[b])
        ours = np.where(np.isnan(bm[b]), np.nan, balance / k * weight * coeff)
        theirs = np.array(json.loads(cells), dtype=float)
        if (np.isnan(ours) != np.isnan(theirs)).any():
            said.append(f".mea.{coin}: other cells are null")
        gap = np.nanmax(np.abs(ours - theirs) - 1e-9 * np.maximum(1, np.abs(ours)))
        if gap > 0 or abs(np.nansum(ours) - value) > 1e-9 * max(1, abs(value)):
            said.append(f".mea.{coin}: {np.nansum(ours)!r} here, {value!r} there")
        mean = float(np.mean(weight[~np.isnan(bm[b])]))
        if rank(2 * mean / 1.15 - 1) != tier:
            said.append(f".mea.{coin}: rank {tier} of a mean weight of {mean!r}")
    return said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="the SQLite file")
    parser.add_argument("--windows", type=int, default=1000, help="newest windows of each label")
    parser.add_argument("--labels", nargs="+", default=list(LENGTHS), choices=list(LENGTHS))
    parser.add_argument("--mood-symbols", type=int, default=12, help="most symbols of a mood")
    parser.add_argument("--time", action="store_true", help="compute only, and say how long")
    options = parser.parse_args()
    np.seterr(all="ignore")
    store = Store(options.store)
    if options.time:
        # Which windows there are is asked beforehand: it takes longer the more are stored.
        todo = {label: store.windows(label, options.windows)[::-1] for label in options.labels}
        windows, symbols, started = 0, 0, time.perf_counter()
        for label in options.labels:
            first, last = todo[label][0][0], todo[label][-1][0]
            # The changes over 24 hours look back on the day before.
            history, before = History(store, first // DAY * DAY - DAY, last + LENGTHS[label]), None
            for start, version in todo[label]:
                before = compute(history, label, start, version, before, options.mood_symbols)
                windows, symbols = windows + 1, symbols + len(before[0]) - 1
        seconds = time.perf_counter() - started
        print(json.dumps({"windows": windows, "symbol_windows": symbols, "seconds": seconds}))
        return
    started = time.perf_counter()
    kinds = ("windows", "symbol_windows", "slices", "cells", "moods", "allocations")
    counts = dict.fromkeys(kinds, 0)
    differing = 0

    def report(what, found):
        nonlocal differing
        found = list(found)
        differing += bool(found)
        for text in found[:3]:
            print(f"{what}: {text}", file=sys.stderr)

    for label in options.labels:
        before = None
        for start, version in reversed(store.windows(label, options.windows)):
            what = f"{label} {start}"
            report(what, check_window(store, label, start, version))
            counts["windows"] += 1
            counts["symbol_windows"] += len(store.members(label, start, version))
            ts = start + LENGTHS[label]
            head = store.rows(
                "select version, coins, opening_ts, previous_ts from matrices_slices"
                " where series = ? and ts_ms = ? order by version desc limit 1", label, ts)
            if head:
                slice_version, coins, opening, previous = head[0]
                known = before if before and before[0] == previous else None
                coins_here, grids = matrices(
                    store, label, start, version, opening, known and known[1:])
                report(what, differences(coins_here, json.loads(coins), ".coins"))
                if known or previous is None:
                    report(what, check_slice(store, label, ts, slice_version, coins_here, grids))
                    counts["slices"] += 1
                    counts["cells"] += len(TYPES) * len(coins_here) * (len(coins_here) - 1)
                    found = check_allocation(store, label, start, coins_here, grids)
                    if found is not None:
                        report(what, found)
                        counts["allocations"] += 1
                else:
                    # Its predecessor was not recomputed: it only serves the next one.
                    grids["id_pct"] = stored_grid(store, label, ts, slice_version, "id_pct", coins_here)
                before = ts, coins_here, grids
            found = check_mood(store, label, start, version, options.mood_symbols)
            if found is not None:
                report(what, found)
                counts["moods"] += 1
    counts["differing"] = differing
    counts["seconds"] = round(time.perf_counter() - started, 2)
    print(json.dumps(counts))
    if differing or not all(counts[key] for key in ("windows", "slices", "moods")):
        sys.exit(1)


def stored_grid(store, label, ts, version, kind, coins):
    grid = np.full((len(coins), len(coins)), np.nan)
    for base, cells in store.rows(
        "select base, cells from matrices_rows where series = ? and ts_ms = ? and version = ?"
        " and matrix_type = ?", label, ts, version, kind):
        grid[coins.index(base)] = np.array(json.loads(cells), dtype=float)
    return grid


if __name__ == "__main__":
    main()
