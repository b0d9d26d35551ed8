//! Golden values of section 12, and the properties that hold for all windows.

use proptest::prelude::*;
use watchbell_core::Time;

use super::idhr::IDHR_BINS;
use super::*;

const RISING: [f64; 12] =
    [100.0, 101.0, 102.0, 101.5, 103.0, 102.5, 104.0, 103.0, 105.0, 104.5, 106.0, 105.5];
const STEPPED: [f64; 10] = [100.0, 100.0, 100.0, 101.0, 103.0, 104.0, 104.0, 104.5, 105.0, 110.0];

#[track_caller]
fn near(actual: f64, golden: f64, relative: f64) {
    let error = (actual - golden).abs();
    assert!(error <= relative * golden.abs().max(1e-300), "{actual} is not {golden} ({error:e})");
}
#[track_caller]
fn exact(actual: f64, golden: f64) {
    near(actual, golden, 1e-12);
}
#[track_caller]
fn chain(actual: f64, golden: f64) {
    near(actual, golden, 1e-9);
}

fn window(prices: &[f64]) -> WindowStats {
    window_with(prices, &vec![1.0; prices.len()])
}
fn window_with(prices: &[f64], weights: &[f64]) -> WindowStats {
    let times: Vec<Time> = (1..=prices.len() as i64).map(|i| Time(i * 5_000)).collect();
    let input = WindowInput::new(prices, &times, weights).unwrap();
    compute_window(&input, &mut Scratch::default())
}
fn inner_outer(prices: &[f64], bins: usize, parity: Parity) -> (f64, f64) {
    let weights = vec![1.0; prices.len()];
    let v = vectors::vectors(prices, &weights, bins, parity, &mut vectors::Buffers::default());
    (v.inner, v.outer)
}

#[test]
fn idhr_of_the_rising_series() {
    let stats = window(&RISING);
    let idhr = &stats.idhr;
    assert_eq!(idhr.lo, 0.0);
    exact(idhr.hi, 0.058268908123975824);
    exact(idhr.width, 2.276_129_223_592_805_6e-4);
    assert_eq!(idhr.selected_bins, [129, 0, 43, 65, 87, 108, 172, 193, 214, 235, 255]);
    assert_eq!(idhr.selected_primaries, [8, 0, 2, 4, 5, 6, 10, 12, 13, 14, 15]);
    exact(idhr.mu_r, 0.03102410212567099);
    exact(idhr.std_r, 0.018186322774982534);
    exact(stats.stats.sigma, 1.795054935711501);
    exact(stats.stats.z_abs, 0.8511036333114884);
    assert_eq!(stats.histogram.counts.iter().sum::<u32>(), 12);
    assert_eq!(stats.mode.bin, 129);
}

#[test]
fn the_origin_fills_its_selection_with_empty_bins() {
    let offsets: Vec<f64> = RISING.iter().map(|p| math::ln(p / 100.0)).collect();
    let mut buffers = idhr::Buffers::default();
    let grid = idhr::bin(&offsets, IDHR_BINS, Parity::Origin, &mut buffers);
    let idhr = idhr::summarise(&offsets, &grid, &mut buffers);
    let counts = buffers.masked.iter().enumerate().filter(|(_, count)| **count > 0);
    let twice = |bin| if bin == 129 { 2 } else { 1 };
    let golden = [0, 43, 65, 87, 108, 129, 172, 193, 214, 235, 255].map(|bin| (bin, twice(bin)));
    assert_eq!(counts.map(|(bin, count)| (bin, *count)).collect::<Vec<_>>(), golden);
    assert_eq!(idhr.selected_bins.len(), 16);
    assert_eq!(idhr.selected_primaries, [8, 0, 2, 4, 5, 6, 10, 12, 13, 14, 15]);
}

#[test]
fn gfm_in_both_forms() {
    let product = window(&RISING).stats;
    exact(product.r_center, 0.03103122841498192);
    exact(product.gfm, 103.15177160468507);
    let offsets: Vec<f64> = RISING.iter().map(|p| math::ln(p / 100.0)).collect();
    let mut buffers = idhr::Buffers::default();
    let grid = idhr::bin(&offsets, IDHR_BINS, Parity::Origin, &mut buffers);
    let origin = fm::gfm(100.0, &grid, &buffers, Parity::Origin);
    exact(origin.r_center, 0.023532647139478953);
    exact(origin.gfm, 102.3811724725205);
    exact(origin.bfm01, 0.4034858387799564);
    let stats = fm::price_stats(&RISING, origin, None);
    near(stats.delta_gfm_pct.0, 2.3811724725204986, 1e-12);
    assert!(stats.gfm_shifted && !stats.bfm_shifted);
    assert_eq!(
        general_floating_mode(&RISING, &mut Scratch::default()).map(|g| g.gfm),
        Some(product.gfm)
    );
}

#[test]
fn inner_and_outer_in_both_forms() {
    for (bins, inner, outer) in
        [(4, 48.73723857533367, 45.21284410535714), (8, 50.0, 46.211715726000975), (256, 0.0, 0.0)]
    {
        let (i, o) = inner_outer(&RISING, bins, Parity::Origin);
        chain(i, inner);
        chain(o, outer);
    }
    let (inner, outer) = inner_outer(&RISING, 4, Parity::Product);
    chain(inner, 8.163955413457);
    chain(outer, 8.145866005085);
    assert!(inner_outer(&RISING, 8, Parity::Product).0.abs() < 1e-12);
    assert_eq!(inner_outer(&STEPPED, 4, Parity::Origin).0, 0.0);
    chain(inner_outer(&STEPPED, 4, Parity::Product).0, 2.3447890582412);
}

#[test]
fn tendency_and_swap() {
    let stats = window(&RISING);
    let t = stats.vectors.tendency;
    let returns: Vec<f64> = RISING.windows(2).map(|w| 100.0 * math::ln(w[1] / w[0])).collect();
    exact(order::roughness(&returns, &mut [Vec::new(), Vec::new()]), 1.666515324979739);
    near(t.slope, -0.04640420358170332, 1e-11);
    near(t.r, -0.1453593601238459, 1e-11);
    chain(t.direction, -0.03061998070077);
    chain(t.score, -3.06199807);
    chain(stats.vectors.swap.q, 0.46068428544699924);
    chain(stats.vectors.swap.score, 50.26316127566678);
    let stepped = vectors::vectors(
        &STEPPED,
        &[1.0; 10],
        128,
        Parity::Product,
        &mut vectors::Buffers::default(),
    );
    chain(stepped.tendency.score, 39.862858739532875);
    chain(stepped.swap.score, 36.933876773190754);
}

#[test]
fn intrinsic_metrics() {
    let product = window(&RISING);
    let i = product.intrinsic;
    chain(i.inertia.still, 57.94141050485122);
    chain(i.inertia.growth, 53.07519586760724);
    assert_eq!((i.inertia.total, i.inertia.face), (i.inertia.still, Face::Static));
    exact(i.flip_rate, 0.9);
    let mut buffers = intrinsic::Buffers::default();
    vectors::last_returns(&RISING, 30, 1.0, &mut buffers.returns);
    let origin = intrinsic::intrinsic(&product.vectors.tendency, Parity::Origin, &mut buffers);
    chain(origin.amp, 0.006718204611574512);
    chain(origin.volt, 0.016665153095518446);
    chain(origin.efficiency, -0.32446335584397773);
    chain(i.amp, 0.6718007645062061);
    chain(i.volt, 1.6663610631646915);
    assert_eq!(origin.inertia, i.inertia);
}

#[test]
fn a_flat_window_moves_nothing() {
    for price in [100.0, 0.1, 100.1, 0.000_012_34] {
        let stats = window_with(&[price; 37], &[0.3; 37]);
        let v = stats.vectors;
        assert_eq!((v.inner, v.outer, v.spread), (0.0, 0.0, 0.0));
        assert_eq!((v.tendency, v.swap), (Tendency::default(), Swap::default()));
        let i = stats.intrinsic;
        chain(i.inertia.still, 76.15941559557649);
        assert_eq!(
            (i.inertia.growth, i.disruption, i.amp, i.volt, i.efficiency, i.flip_rate),
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        );
        assert_eq!((stats.stats.sigma, stats.stats.z_abs), (0.0, 0.0));
        assert_eq!((stats.stats.bench_pct_min.0, stats.stats.bench_pct_max.0), (0.0, 0.0));
        // The degenerate grid stands around the price, half a bin of 2e-8 beside it.
        assert!(stats.stats.delta_gfm_pct.0.abs() < 1e-5 && !stats.stats.gfm_shifted);
    }
}

#[test]
fn windows_of_one_two_and_three_prices_are_computed() {
    let one = window(&[5.0]);
    assert_eq!((one.samples, one.stats.prev, one.vectors.inner), (1, None, 0.0));
    let two = window(&[5.0, 6.0]);
    assert_eq!((two.stats.prev, two.vectors.tendency.score), (Some(5.0), 0.0));
    let three = window(&[5.0, 6.0, 5.5]);
    assert_eq!(three.intrinsic, Intrinsic::default(), "two returns are too few");
    let mut scratch = Scratch::default();
    assert_eq!(signals(&[1.0, 2.0], &[1.0; 2], &mut scratch), None);
    assert_eq!(signals(&[1.0, 2.0, f64::NAN], &[1.0; 3], &mut scratch), None);
    assert!(signals(&[1.0, 2.0, 3.0], &[1.0; 3], &mut scratch).is_some());
}

#[test]
fn signals_are_the_window_of_the_same_points() {
    let stats = window(&RISING);
    let s = signals(&RISING, &[1.0; 12], &mut Scratch::default()).unwrap();
    assert_eq!((s.v_inner, s.v_outer), (stats.vectors.inner, stats.vectors.outer));
    assert_eq!((s.v_swap, s.v_tendency), (stats.vectors.swap.score, stats.vectors.tendency.score));
    assert_eq!((s.amp, s.inertia), (stats.intrinsic.amp, stats.intrinsic.inertia.total));
    assert_eq!((s.mode_general, s.mode_b), (129, (100.0 * stats.stats.bfm01).round() as i32));
}

#[test]
fn what_is_no_window_is_refused() {
    let t = [Time(1), Time(2)];
    let error =
        |p: &[f64], t: &[Time], w: &[f64]| WindowInput::new(p, t, w).unwrap_err().to_string();
    assert_eq!(error(&[], &[], &[]), "the window has no prices");
    assert_eq!(error(&[1.0], &t, &[1.0]), "the window has 1 prices, 2 times and 1 weights");
    assert_eq!(
        error(&[1.0, 0.0], &t, &[1.0; 2]),
        "price 0 at 1970-01-01T00:00:00.002Z is not a positive number"
    );
    assert!(error(&[1.0, 1.0], &[Time(2), Time(1)], &[1.0; 2]).contains("must be in time order"));
    let input = WindowInput::new(&[1.0; 2], &t, &[1.0; 2]).unwrap();
    assert_eq!(input.bins(0).unwrap_err(), InputError::Bins(0));
    assert_eq!(
        compute_window(&input.bins(16).unwrap(), &mut Scratch::default()).histogram.counts.len(),
        16
    );
}

#[test]
fn an_anchor_moves_the_references() {
    let t: Vec<Time> = (0..12).map(Time).collect();
    let input = WindowInput::new(&RISING, &t, &[1.0; 12]).unwrap();
    let anchor = Anchor { gfm: 103.15177160468507, bfm01: 0.25 };
    let stats = compute_window(&input.anchor(anchor), &mut Scratch::default()).stats;
    assert!(stats.delta_gfm_pct.0.abs() < 1e-9 && !stats.gfm_shifted && stats.bfm_shifted);
}

/// A hash pinned across machines and releases: when it changes, published windows no longer
/// compare with recomputed ones, and the schema version must grow.
#[test]
fn the_result_hash_of_the_rising_series_is_pinned() {
    let mut hasher = hash::ResultHasher::new("30m", Time(0));
    hasher.part("RISING", &window(&RISING));
    hasher.part("STEPPED", &window(&STEPPED));
    assert_eq!(hasher.finish(), "2d6df40a830ea63c5bca1a77c783a79ccb31d209223a5f4b2e5b48be8daaa6bb");
}

#[test]
fn vector_json_has_the_published_shape() {
    let json: serde_json::Value = serde_json::from_str(&window(&RISING).vectors.to_json()).unwrap();
    let keys = |v: &serde_json::Value| {
        v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&json), "bins inner outer samples scale schema_version spread swap tendency");
    assert_eq!(keys(&json["swap"]), "Q q1 q3 score");
    assert_eq!(keys(&json["tendency"]), "direction r score slope strength");
    assert_eq!((&json["schema_version"], &json["samples"]), (&1.into(), &12.into()));
}

/// A random walk of up to 400 steps with its weights.
fn walks() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    (1e-6_f64..1e5, prop::collection::vec((-0.01_f64..0.01, 0.1_f64..9.0, 0..4_u8), 1..400))
        .prop_map(|(start, steps)| {
            let mut price = start;
            steps
                .into_iter()
                .map(|(step, weight, stays)| {
                    price *= if stays == 0 { 1.0 } else { 1.0 + step };
                    (price, weight)
                })
                .unzip()
        })
}

proptest! {
    #[test]
    fn scores_are_bounded_and_repeatable((prices, weights) in walks()) {
        let stats = window_with(&prices, &weights);
        let (v, i) = (stats.vectors, stats.intrinsic);
        for score in [
            v.inner, v.outer, v.tendency.score, v.swap.score, 100.0 * v.swap.q, 100.0 * v.tendency.r,
            i.inertia.total, i.inertia.still, i.inertia.growth, i.disruption, i.amp, i.volt, i.efficiency,
        ] {
            prop_assert!(score.abs() <= 100.0, "{score} in {v:?} {i:?}");
        }
        prop_assert!((0.0..=1.0).contains(&stats.stats.bfm01));
        prop_assert!(stats.stats.price_min <= stats.stats.gfm * 1.001);
        prop_assert!(stats.stats.gfm <= stats.stats.price_max * 1.001);
        prop_assert!(!stats.idhr.selected_bins.is_empty() && stats.idhr.selected_bins.len() <= 16);
        prop_assert_eq!(stats.histogram.counts.iter().sum::<u32>() as usize, prices.len());

        // A used scratch leaves no trace.
        let times: Vec<Time> = (0..prices.len() as i64).map(Time).collect();
        let mut used = Scratch::default();
        prop_assert!(general_floating_mode(&RISING, &mut used).is_some());
        prop_assert!(signals(&STEPPED, &[2.0; 10], &mut used).is_some());
        let input = WindowInput::new(&prices, &times, &weights).unwrap();
        prop_assert_eq!(compute_window(&input, &mut used), stats);
    }

    #[test]
    fn the_unit_of_price_does_not_matter((prices, weights) in walks(), lambda in 1e-4_f64..1e4, two in -20_i32..20) {
        let ours = window_with(&prices, &weights);
        // A power of two scales without rounding: not one bit of a score may differ.
        let twos: Vec<f64> = prices.iter().map(|p| p * 2.0_f64.powi(two)).collect();
        let scaled = window_with(&twos, &weights);
        prop_assert_eq!(&scaled.vectors, &ours.vectors);
        prop_assert_eq!(&scaled.intrinsic, &ours.intrinsic);
        prop_assert_eq!(&scaled.idhr, &ours.idhr);
        prop_assert_eq!(scaled.stats.delta_gfm_pct, ours.stats.delta_gfm_pct);

        let scaled: Vec<f64> = prices.iter().map(|p| p * lambda).collect();
        let scaled = window_with(&scaled, &weights);
        for (a, b) in [
            (scaled.vectors.inner, ours.vectors.inner),
            (scaled.vectors.tendency.score, ours.vectors.tendency.score),
            (scaled.vectors.swap.score, ours.vectors.swap.score),
            (scaled.intrinsic.inertia.total, ours.intrinsic.inertia.total),
            (scaled.intrinsic.disruption, ours.intrinsic.disruption),
            (scaled.stats.delta_gfm_pct.0, ours.stats.delta_gfm_pct.0),
        ] {
            prop_assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
    }
}
