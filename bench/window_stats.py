#!/usr/bin/env python3
"""The window statistics in straightforward numpy, to compare with Watchbell's for speed and value.

    python3 bench/window_stats.py candles.csv
    python3 bench/window_stats.py candles.csv --lengths 30 60 180 --dump numpy.jsonl
    python3 bench/window_stats.py candles.csv --compare ours.jsonl

The CSV has a header line with the columns `close` and `volume`. Every window of a length is
computed, one after the other without overlap, on one core. Standard output is one JSON object with
seconds and windows per second.

A dump has one line for each window: {"length": 30, "index": 0, "stats": {...}}, with the fields of
`WindowStats`. `--compare FILE` reads such lines and exits with 1 when a number differs by more
than 1e-9, relative to its size where that exceeds 1.
"""

import argparse
import csv
import gzip
import json
import os
import sys
import time

# One core, as on the other side of the comparison; numpy reads these when it is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
try:
    import numpy as np
except ImportError:
    sys.exit("window_stats.py needs numpy: install it with `python3 -m pip install numpy`")

BINS, PER_PRIMARY, SELECTED, TOP, DISPLAY = 256, 16, 16, 8, 128
# Positions in the range that are closer than this are one.
SAME = 1e-9
TENDENCY, METRICS = 30, 30


def mad(values):
    return np.median(np.abs(values - np.median(values)))


def roughness(series):
    return float(mad(np.diff(series))) if len(series) > 1 else 0.0


def bin_index(r, lo, hi, bins):
    j = ((r - lo) / ((hi - lo) / bins)).astype(np.int64)
    return np.where(r <= lo, 0, np.where(r >= hi, bins - 1, np.clip(j, 0, bins - 1)))


def smooth(counts, reach):
    kernel = np.ones(2 * reach + 1)
    return np.convolve(counts, kernel, "same") / np.convolve(np.ones(len(counts)), kernel, "same")


def histogram(r):
    """The masked density histogram: summary, masked counts, bins of the points, inliers."""
    lo, hi = float(r.min()), float(r.max())
    if hi <= lo:
        lo, hi = lo - 2.5e-6, lo + 2.5e-6
    width = (hi - lo) / BINS
    bins = bin_index(r, lo, hi, BINS)
    counts = np.bincount(bins, minlength=BINS)
    order = np.lexsort((np.arange(BINS), -counts))[:SELECTED]
    order = order[counts[order] > 0]
    primaries = list(dict.fromkeys((order // PER_PRIMARY).tolist()))
    chosen = np.isin(np.arange(BINS) // PER_PRIMARY, primaries)
    masked = np.where(chosen, counts, 0)
    inlier = chosen[bins]
    kept = r[inlier]
    std = float(np.std(kept, ddof=1)) if len(kept) > 1 else 0.0

    s = smooth(masked, 2)
    peaks = np.flatnonzero((s[1:-1] > s[:-2]) & (s[1:-1] > s[2:])) + 1
    peaks = peaks[np.argsort(-s[peaks], kind="stable")][:3]
    summary = {
        "lo": lo,
        "hi": hi,
        "width": width,
        "bins": BINS,
        "selected_primaries": primaries,
        "selected_bins": order.tolist(),
        "mu_r": float(kept.mean()),
        "std_r": max(std, 1e-6),
        "nuclei": [
            {
                "bin": int(j),
                "density": float(s[j] / masked.sum()),
                "first": float((s[j + 1] - s[j - 1]) / 2),
                "second": float(s[j + 1] - 2 * s[j] + s[j - 1]),
            }
            for j in peaks
        ],
    }
    return summary, masked, order, inlier


def floating_mode(r, opening, idhr, masked, order):
    mode = int(order[0])
    d = r - idhr["mu_r"]
    z_abs = float(np.mean(np.abs(d / idhr["std_r"])))
    total = masked.sum()
    left, right = masked[:mode].sum() / total, masked[mode + 1 :].sum() / total
    gfm = idhr["lo"] + (mode + 0.5) * idhr["width"]
    return {
        "bin": mode,
        "gfm_log": gfm,
        "gfm_price": float(opening * np.exp(gfm)),
        "z_abs": z_abs,
        "confidence": 1 / (1 + z_abs),
        "inertia": float(np.mean(d * d)),
        "disruption": float(np.abs(np.diff(smooth(masked, 1))).mean()),
        "v_inner": float(min(left, right)),
        "v_outer": float(max(left, right)),
    }


def price_stats(prices, idhr, masked, order):
    opening, low, high = float(prices[0]), float(prices.min()), float(prices.max())
    sigma = float(prices.std()) if high > low else 0.0
    z_abs = float(np.mean(np.abs((prices - prices.mean()) / sigma))) if sigma else 0.0
    centres = idhr["lo"] + (np.arange(BINS) + 0.5) * idhr["width"]
    dense = masked >= max(1, masked[order[:TOP][-1]])
    centre = float((centres[dense] * masked[dense]).sum() / masked[dense].sum())
    gfm = float(opening * np.exp(centre))
    delta = 100 * (gfm / opening - 1)
    bfm = (centre - centres[0]) / max(1e-9, centres[-1] - centres[0])
    return {
        "opening": opening,
        "last": float(prices[-1]),
        "prev": float(prices[-2]) if len(prices) > 1 else None,
        "price_min": low,
        "price_max": high,
        "bench_pct_min": 100 * (low / opening - 1),
        "bench_pct_max": 100 * (high / opening - 1),
        "sigma": sigma,
        "z_abs": z_abs,
        "r_center": centre,
        "gfm": gfm,
        "ref_gfm": opening,
        "delta_gfm_abs": gfm - opening,
        "delta_gfm_pct": delta,
        "gfm_shifted": bool(abs(delta) >= 0.35),
        "bfm01": float(bfm),
        "ref_bfm01": float(bfm),
        "delta_bfm_pct": 0.0,
        "bfm_shifted": False,
    }


def weighted_median(x, w):
    order = np.argsort(x, kind="stable")
    x, cumulative = x[order], np.cumsum(w[order])
    half = cumulative[-1] / 2
    i = int(np.searchsorted(cumulative, half))
    if cumulative[i] == half and i + 1 < len(x):
        return (x[i] + x[i + 1]) / 2
    return x[i]


def leaning(x, w):
    centre = weighted_median(x, w)
    sigma = weighted_median(np.abs(x - centre), w)
    if sigma <= SAME:
        if x.min() == x.max():
            return 0.0
        mean = np.average(x, weights=w)
        sigma = np.sqrt(np.average((x - mean) ** 2, weights=w))
        if sigma <= SAME:
            return 0.0
    return np.tanh(np.average((x - centre) / sigma, weights=w))


def tendency(y):
    if len(y) < 2:
        return dict(direction=0.0, strength=0.0, slope=0.0, r=0.0, score=0.0)
    x = np.arange(len(y)) - (len(y) - 1) / 2
    d = y - y.mean()
    xy, xx, yy = (x * d).sum(), (x * x).sum(), (d * d).sum()
    slope, r = xy / xx, (float(np.clip(xy / np.sqrt(xx * yy), -1, 1)) if yy > 0 else 0.0)
    noise = roughness(y)
    z = 0.0 if noise <= 1e-9 * max(1e-6, np.abs(y).max()) else slope / noise
    direction = float(np.tanh(1.1 * z))
    return dict(
        direction=direction, strength=abs(r), slope=float(slope), r=r, score=100 * direction
    )


def swap(prices, y):
    low, high = prices.min(), prices.max()
    sd = prices.std() if high > low else 0.0
    t = np.clip(y, -100, 100) / 100
    q1, q3 = np.quantile(t, [0.25, 0.75])
    p = prices[-len(y) :]
    position = np.clip(100 * (p - prices.mean()) / sd, -100, 100) / 100 if sd else np.zeros(len(p))
    bottom = t <= q1
    top = ~bottom & (t >= q3)
    mean_of = lambda side: position[side].mean() if side.any() else 0.0
    q = float(np.clip((mean_of(top) - mean_of(bottom)) / 2, -1, 1))
    return {"Q": q, "score": float(100 * np.tanh(1.2 * q)), "q1": float(q1), "q3": float(q3)}


def vectors(prices, weights):
    low, high = prices.min(), prices.max()
    mean, left, right = 0.0, 0.0, 0.0
    if high > low:
        x = np.clip((prices - low) / (high - low), 0, 1)
        bins = np.floor((x + SAME) * (DISPLAY - 1) + 0.5).astype(np.int64)
        gamma = np.bincount(bins, weights, minlength=DISPLAY)
        counts = np.bincount(bins, minlength=DISPLAY)
        # A bin with one point leans nowhere.
        leanings = sum(
            gamma[k] * leaning(x[bins == k], weights[bins == k]) for k in np.flatnonzero(counts > 1)
        )
        mean = float(leanings / gamma.sum())
        left, right = gamma[: DISPLAY // 2].sum(), gamma[DISPLAY // 2 + 1 :].sum()
    y = 100 * np.log(prices[1:] / prices[:-1])[-TENDENCY:]
    if len(y) < 2:
        q = float((right - left) / (left + right)) if left + right > 0 else 0.0
        swapped = {"Q": q, "score": float(100 * np.tanh(1.2 * q)), "q1": 0.0, "q3": 0.0}
    else:
        swapped = swap(prices, y)
    outer = float(100 * np.tanh(mean))
    return {
        "inner": 100 * mean,
        "outer": outer,
        "spread": outer - 100 * mean,
        "tendency": tendency(y),
        "swap": swapped,
        "samples": len(prices),
        "bins": DISPLAY,
        "scale": 100.0,
    }


def intrinsic(prices, trend):
    r = np.log(prices[1:] / prices[:-1])[-METRICS:]
    if len(r) < 3:
        inertia = {"static": 0.0, "growth": 0.0, "total": 0.0, "face": "static"}
        return dict(
            inertia=inertia, disruption=0.0, amp=0.0, volt=0.0, efficiency=0.0, flip_rate=0.0
        )
    rough, centre = roughness(r), float(np.median(r))
    still = float(100 * np.tanh(1 / (1 + rough)) * np.tanh(0.01 / (abs(centre) + 1e-9)))
    growth = float(100 * np.tanh(abs(centre) / (rough + 1e-9)))
    signs = np.sign(r[r != 0])
    flips = float(np.mean(signs[1:] != signs[:-1])) if len(signs) > 1 else 0.0
    volt = float(100 * np.tanh(100 * rough / 100))
    gain = 0.6 * trend["direction"] * trend["strength"] - 0.2 * volt / 100
    return {
        "inertia": {
            "static": still,
            "growth": growth,
            "total": max(still, growth),
            "face": "growth" if growth > still else "static",
        },
        "disruption": float(100 * np.tanh(abs(r[-1] - centre) / (rough + 1e-9))),
        "amp": float(100 * np.tanh(100 * mad(r) / 100) * np.tanh(flips)),
        "volt": volt,
        "efficiency": float(np.clip(100 * np.tanh(1.2 * gain), -100, 100)),
        "flip_rate": flips,
    }


def window_stats(prices, weights):
    weights = np.where(weights > 0, weights, 1.0)
    r = np.log(prices / prices[0])
    idhr, masked, order, inlier = histogram(r)
    if inlier.sum() < 2:
        inlier = np.ones(len(prices), dtype=bool)
    moved = vectors(prices[inlier], weights[inlier])
    low, high = float(r.min()), float(r.max())
    if high <= low:
        low, high = low - 1e-6, high + 1e-6
    shown = np.bincount(bin_index(r, low, high, DISPLAY), minlength=DISPLAY)
    return {
        "samples": len(prices),
        "idhr": idhr,
        "mode": floating_mode(r, prices[0], idhr, masked, order),
        "stats": price_stats(prices, idhr, masked, order),
        "vectors": moved,
        "intrinsic": intrinsic(prices, moved["tendency"]),
        "histogram": {"lo": low, "hi": high, "counts": shown.tolist()},
    }


def differences(a, b, path=""):
    """Yields a line for every place where two results differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from differences(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(x, y, f"{path}[{i}]")
    elif type(a) in (int, float) and type(b) in (int, float):
        if not abs(a - b) <= 1e-9 * max(1.0, abs(a), abs(b)):
            yield f"{path[1:]}: {a!r} here, {b!r} there"
    elif a != b:
        yield f"{path[1:]}: {a!r} here, {b!r} there"


def read_candles(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", newline="") as file:
        rows = csv.DictReader(file)
        missing = {"close", "volume"} - set(rows.fieldnames or ())
        if missing:
            sys.exit(f"{path} has no column {' and no column '.join(sorted(missing))}")
        pairs = [(float(row["close"]), float(row["volume"])) for row in rows]
    return np.array(pairs).reshape(-1, 2).T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("candles", help="CSV with the columns close and volume, may end in .gz")
    parser.add_argument("--lengths", type=int, nargs="+", default=[30, 60, 180])
    parser.add_argument("--dump", help="write one JSON line for each window")
    parser.add_argument("--compare", help="compare with the JSON lines of another program")
    options = parser.parse_args()

    closes, volumes = read_candles(options.candles)
    results, report = {}, {"numpy": np.__version__, "candles": len(closes), "lengths": []}
    keep = bool(options.dump or options.compare)
    for length in options.lengths:
        count = len(closes) // length
        started = time.perf_counter()
        for index in range(count):
            part = slice(index * length, (index + 1) * length)
            stats = window_stats(closes[part], volumes[part])
            if keep:
                results[length, index] = stats
        seconds = time.perf_counter() - started
        rate = count / seconds if seconds else 0.0
        report["lengths"].append(
            {"length": length, "windows": count, "seconds": seconds, "windows_per_second": rate}
        )
    report["seconds"] = sum(row["seconds"] for row in report["lengths"])
    windows = sum(row["windows"] for row in report["lengths"])
    report["windows_per_second"] = windows / report["seconds"] if report["seconds"] else 0.0

    if options.dump:
        with open(options.dump, "w") as file:
            for (length, index), stats in results.items():
                file.write(json.dumps({"length": length, "index": index, "stats": stats}) + "\n")
    differing = 0
    if options.compare:
        compared = 0
        with open(options.compare) as file:
            for line in file:
                other = json.loads(line)
                key = other["length"], other["index"]
                if key not in results:
                    continue
                compared += 1
                found = list(differences(results[key], other["stats"]))
                differing += bool(found)
                for text in found[:3]:
                    print(f"window {key[1]} of length {key[0]}: {text}", file=sys.stderr)
        report["compared"], report["differing"] = compared, differing
    print(json.dumps(report))
    if differing or (options.compare and not compared):
        sys.exit(1)


if __name__ == "__main__":
    main()
