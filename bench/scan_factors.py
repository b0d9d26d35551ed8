#!/usr/bin/env python3
"""The factors of a scan in straightforward numpy, to compare with Watchbell's for speed and value.

    python3 bench/scan_factors.py market.bin
    python3 bench/scan_factors.py market.bin --compare ours.json

The file has a line of JSON (symbols, bars, levels, first_hour, adv) and then, for each symbol,
doubles: bars of open, high, low, close, quote volume, and the levels of a book, bids first, of price
and size. Momentum, technical, volume and quality are computed symbol by symbol as such scripts are
written, array operations where there are any (Wilder's averages have none), then residuals and base
score over all of them, with the weights of a normal market. `--compare` reads the explanations of a warm scan and exits with 1 when a
number differs by more than 1e-9, relative to its size where that exceeds 1.
Standard output is one JSON object with the seconds of the computation, reading left out.
"""

import argparse
import json
import math
import os
import sys
import time

# One core, as on the other side of the comparison; numpy reads these when it is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
try:
    import numpy as np
except ImportError:
    sys.exit("scan_factors.py needs numpy: install it with `python3 -m pip install numpy`")

N = 14
OPEN, HIGH, LOW, CLOSE, VALUE = range(5)
MOMENTUM = {1: 0.20, 4: 0.35, 12: 0.30, 24: 0.15}
BLEND = np.array([0.35, 0.25, 0.25, 0.15])
TIERS = [(5e6, 150e3, 25.0, 1.85), (1e6, 75e3, 50.0, 1.80), (0.0, 25e3, 80.0, 1.75)]


def wilder(values):
    values = values.tolist()
    average = sum(values[:N]) / N
    for value in values[N:]:
        average = (average * (N - 1) + value) / N
    return average


def true_range(bars):
    before = bars[:-1, CLOSE]
    high, low = bars[1:, HIGH], bars[1:, LOW]
    return np.maximum(high - low, np.maximum(np.abs(high - before), np.abs(low - before)))


def rsi(bars):
    change = np.diff(bars[:, CLOSE])
    gain, loss = wilder(np.maximum(change, 0)), wilder(np.maximum(-change, 0))
    return 100 - 100 / (1 + gain / loss) if loss > 0 else 100.0 if gain > 0 else 50.0


def adx(bars):
    up, down = np.diff(bars[:, HIGH]), -np.diff(bars[:, LOW])
    plus = np.where((up > down) & (up > 0), up, 0)
    minus = np.where((down > up) & (down > 0), down, 0)
    series = np.stack([plus, minus, true_range(bars)], axis=1)
    total, sums = series[:N].sum(axis=0), []
    sums.append(total)
    for row in series[N:]:
        total = total - total / N + row
        sums.append(total)
    sums = np.array(sums)
    plus, minus = sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]
    both = plus + minus
    return wilder(np.where(both > 0, 100 * np.abs(plus - minus) / np.where(both > 0, both, 1), 0))


def hurst(bars):
    r = np.diff(np.log(bars[-50:, CLOSE]))
    walk = np.cumsum(r - r.mean())
    return min(1.0, max(0.0, math.log((walk.max() - walk.min()) / r.std()) / math.log(len(r))))


def group(bars, first_hour, hours):
    skip = -first_hour % hours
    whole = (len(bars) - skip) // hours
    part = bars[skip : skip + whole * hours].reshape(whole, hours, 5)
    return np.stack(
        [
            part[:, 0, OPEN],
            part[:, :, HIGH].max(axis=1),
            part[:, :, LOW].min(axis=1),
            part[:, -1, CLOSE],
            part[:, :, VALUE].sum(axis=1),
        ],
        axis=1,
    )


def momentum(bars, fours):
    close = bars[:, CLOSE]
    a1, a4 = wilder(true_range(bars)) / close[-1], wilder(true_range(fours)) / close[-1]
    r = {tf: math.log(close[-1] / close[-1 - tf]) for tf in MOMENTUM}
    x = sum(w * r[tf] / max(a1 if tf == 1 else a4, 1e-6) for tf, w in MOMENTUM.items())
    accel = 100 * (r[4] - math.log(close[-5] / close[-9]))
    if r[4] * accel > 0:
        x += math.copysign(0.10 * min(abs(accel), 5), r[4])
    return 50 * (1 + math.tanh(x / 2))


def steps(value, levels):
    return next((points for least, points in levels if value >= least), 5)


def technical(fours):
    strength = rsi(fours)
    bands = [(40, 60, 30), (30, 70, 25), (20, 80, 15)]
    points = next((p for low, high, p in bands if low <= strength <= high), 5)
    points += steps(adx(fours), [(25, 25), (20, 20), (15, 15)])
    points += steps(hurst(fours), [(0.60, 25), (0.55, 20), (0.50, 10)])
    percent = 100 * wilder(true_range(fours)) / fours[-1, CLOSE]
    return points + steps(percent, [(3, 20), (2, 15), (1, 10)])


def volume(bars):
    ratio = bars[-1, VALUE] / bars[-169:-1, VALUE].mean()
    return min(100.0, max(0.0, 50 + 25 * math.log10(ratio)))


def vadr(bars):
    window = bars[-24:]
    activity = (window[:, HIGH] - window[:, LOW]) / window[:, CLOSE] * np.sqrt(window[:, VALUE])
    mean = activity[:-1].mean()
    return activity[-1] / mean, np.percentile(activity[:-1] / mean, 80)


def quality(bids, asks, ratio, adv):
    mid = (bids[0, 0] + asks[0, 0]) / 2
    spread = (asks[0, 0] - bids[0, 0]) / mid * 1e4
    near_bids, near_asks = bids[bids[:, 0] >= 0.98 * mid], asks[asks[:, 0] <= 1.02 * mid]
    depth = (near_bids[:, 0] * near_bids[:, 1]).sum() + (near_asks[:, 0] * near_asks[:, 1]).sum()
    _, least, widest, activity = next(t for t in TIERS if adv >= t[0])
    score = 0.35 * 100 * min(1, depth / (2 * least)) + 0.30 * 100 * min(1, ratio / (2 * activity))
    return (score + 0.25 * 100 * max(0, 1 - spread / (2 * widest))) / 0.90, spread, depth


def residuals(raw):
    means = raw.mean(axis=0)
    centred = raw - means
    for k in range(1, 4):
        for _ in range(2):
            for j in range(k):
                u = centred[:, j]
                if u @ u >= 1e-12:
                    centred[:, k] -= (centred[:, k] @ u) / (u @ u) * u
    out = np.clip(means + centred, 0, 100)
    out[:, 0] = raw[:, 0]
    return out


def compute(head, bars, books):
    rows, ratios, micro = [], [], []
    for i in range(head["symbols"]):
        fours = group(bars[i], head["first_hour"], 4)
        ratio = vadr(bars[i])
        q, spread, depth = quality(books[i, 0], books[i, 1], ratio[0], head["adv"][i])
        rows.append([momentum(bars[i], fours), technical(fours), volume(bars[i]), q])
        ratios.append(ratio)
        micro.append((spread, depth))
    raw = np.array(rows)
    residual = residuals(raw)
    return raw, residual, residual @ BLEND, ratios, micro


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("market")
    parser.add_argument("--compare")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with open(args.market, "rb") as f:
        head = json.loads(f.readline())
        data = np.frombuffer(f.read(), dtype="<f8")
    count, each = head["symbols"], head["bars"] * 5
    data = data.reshape(count, each + 4 * head["levels"])
    bars = np.ascontiguousarray(data[:, :each]).reshape(count, head["bars"], 5)
    books = np.ascontiguousarray(data[:, each:]).reshape(count, 2, head["levels"], 2)

    seconds = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        raw, residual, score, ratios, micro = compute(head, bars, books)
        seconds.append(time.perf_counter() - start)
    report = {"numpy": np.__version__, "seconds": sorted(seconds)[len(seconds) // 2]}

    if args.compare:
        compared = differing = 0
        worst = 0.0
        with open(args.compare) as f:
            ours = {e["symbol"]: e for e in json.load(f)}
        names = ["momentum", "technical", "volume", "quality"]
        for i in range(count):
            e = ours[f"S{i:03d}/USD"]
            pairs = [(e["factors"]["raw"][n], raw[i, k]) for k, n in enumerate(names)]
            pairs += [(e["factors"]["residual"][n], residual[i, k]) for k, n in enumerate(names)]
            pairs += [(e["base_score"], score[i]), (e["vadr"]["value"], ratios[i][0])]
            pairs += [(e["vadr"]["p80"], ratios[i][1])]
            pairs += [(e["microstructure"]["spread_bps"], micro[i][0])]
            pairs += [(e["microstructure"]["depth_usd"], micro[i][1])]
            for at, (a, b) in enumerate(pairs):
                compared += 1
                off = abs(a - b) / max(1.0, abs(b))
                worst = max(worst, off)
                if not off <= 1e-9:
                    differing += 1
                    print(f"{e['symbol']}, number {at}: {a} beside {b}", file=sys.stderr)
        report.update(compared=compared, differing=differing, worst=worst)
    print(json.dumps(report))
    sys.exit(1 if report.get("differing") else 0)


if __name__ == "__main__":
    main()
