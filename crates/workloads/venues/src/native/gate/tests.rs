//! The gate on a clock that the test moves: what it sends, holds back and forgets.

use std::sync::Arc;

use super::*;

const T0: Time = Time(1_767_225_600_000);

fn config() -> NativeConfig {
    NativeConfig { consecutive: 3, ..NativeConfig::of(Venue::Okx) }
}

fn gate(config: &NativeConfig) -> (Clock, Gate) {
    let clock = Clock::manual(T0);
    (clock.clone(), Gate::new(Venue::Okx, config, clock))
}

/// One request that may go at once.
async fn ask(gate: &Gate, outcome: Outcome) -> Result<(), Held> {
    let (permit, weight) = gate.admit(None, 1).await?;
    weight.settle(None);
    permit.settle(outcome, Some(Millis(20)));
    Ok(())
}

#[tokio::test]
async fn an_open_breaker_refuses_before_any_wait() {
    let (clock, gate) = gate(&NativeConfig { burst: 3, rate_per_second: 0.001, ..config() });
    for _ in 0..3 {
        ask(&gate, Outcome::Failed).await.unwrap();
    }
    // The bucket is empty for many minutes, yet nobody waits for it.
    let until = Some(T0 + Millis::from_secs(20));
    assert_eq!(ask(&gate, Outcome::Answered).await, Err(Held::CircuitOpen { until }));
    assert_eq!(gate.health().breaker, BreakerState::Open);
    assert_eq!(gate.health().verdict, Verdict::Unhealthy);
    clock.advance(T0 + Millis::from_secs(20));
    assert_eq!(gate.health().breaker, BreakerState::HalfOpen);
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_the_try_to_others() {
    let (clock, gate) = gate(&config());
    for _ in 0..3 {
        ask(&gate, Outcome::Failed).await.unwrap();
    }
    clock.advance(T0 + Millis::from_secs(20));
    let (probe, weight) = gate.admit(None, 1).await.unwrap();
    weight.settle(None);
    assert_eq!(ask(&gate, Outcome::Answered).await, Err(Held::CircuitOpen { until: None }));
    drop(probe);
    for _ in 0..3 {
        ask(&gate, Outcome::Answered).await.unwrap();
    }
    assert_eq!(gate.health().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn too_many_requests_do_not_open_the_breaker() {
    let (_clock, gate) = gate(&config());
    for _ in 0..6 {
        ask(&gate, Outcome::Limited).await.unwrap();
    }
    assert_eq!(gate.health().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn short_pauses_are_waited_for_and_long_ones_are_not() {
    let (clock, gate) = gate(&config());
    let gate = Arc::new(gate);
    let pause = |secs, banned| Pause { until: T0 + Millis::from_secs(secs), banned };
    gate.pause(pause(30, false));
    let waiting = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { ask(&gate, Outcome::Answered).await }
    });
    assert_eq!(clock.next_timer(T0).await, T0 + Millis::from_secs(30));
    // A longer one comes meanwhile; a shorter one does not replace it.
    gate.pause(pause(31, false));
    gate.pause(pause(2, false));
    clock.advance(T0 + Millis::from_secs(30));
    assert_eq!(clock.next_timer(clock.now()).await, T0 + Millis::from_secs(31));
    clock.advance(T0 + Millis::from_secs(31));
    assert_eq!(waiting.await.unwrap(), Ok(()));

    gate.pause(pause(120, false));
    assert_eq!(ask(&gate, Outcome::Answered).await, Err(Held::Paused(pause(120, false))));
    // A ban counts however short it is, and a longer pause does not replace it.
    gate.pause(pause(40, true));
    gate.pause(pause(600, false));
    assert_eq!(ask(&gate, Outcome::Answered).await, Err(Held::Paused(pause(40, true))));
    assert_eq!(gate.health().verdict, Verdict::Unhealthy);
    assert_eq!(gate.health().requests, 1, "what is held back is no request");
}

#[tokio::test]
async fn budget_and_ban_outlive_the_process() {
    let small = NativeConfig { daily_budget: 4, ..config() };
    let (_, first) = gate(&small);
    for _ in 0..3 {
        ask(&first, Outcome::Answered).await.unwrap();
    }
    let until = T0 + Millis::from_secs(300);
    first.pause(Pause { until, banned: true });
    let text = serde_json::to_string(&first.spent()).unwrap();

    let (clock, second) = gate(&small);
    second.restore(serde_json::from_str(&text).unwrap());
    let ban = Pause { until, banned: true };
    assert_eq!(ask(&second, Outcome::Answered).await, Err(Held::Paused(ban)));
    clock.advance(until);
    ask(&second, Outcome::Answered).await.unwrap();
    let until = T0 + Millis::from_days(1);
    let spent = Held::BudgetSpent { window: "daily", limit: 4, until };
    assert_eq!(ask(&second, Outcome::Answered).await, Err(spent));
    assert_eq!(second.spent().banned_until, None);
    clock.advance(until);
    ask(&second, Outcome::Answered).await.unwrap();
}

#[tokio::test]
async fn a_slow_bucket_halves_the_rate_and_keeps_the_shared_one() {
    let (clock, gate) = gate(&NativeConfig { rate_per_second: 1.0, burst: 15, ..config() });
    let slow = Mutex::new(Bucket::new(0.5, 2));
    let mut sent = Vec::new();
    for _ in 0..6 {
        let mut asking = std::pin::pin!(gate.admit(Some(&slow), 1));
        let admitted = loop {
            tokio::select! {
                biased;
                admitted = &mut asking => break admitted,
                at = clock.next_timer(clock.now()) => clock.advance(at),
            }
        };
        let (permit, weight) = admitted.unwrap();
        weight.settle(None);
        permit.settle(Outcome::Answered, None);
        sent.push((clock.now() - T0).0 / 1_000);
    }
    assert_eq!(sent, [0, 0, 2, 4, 6, 8]);
}

#[test]
fn health_is_told_in_the_words_of_artifacts() {
    let (_, gate) = gate(&config());
    let health = serde_json::to_value(gate.health()).unwrap();
    let want = serde_json::json!({
        "venue": "okx", "breaker": "CLOSED", "requests": 0, "error_ratio": null, "p50_ms": null,
        "p99_ms": null, "verdict": "healthy",
        "budget": {
            "used_today": 0, "daily_limit": 40_000, "used_this_month": 0,
            "monthly_limit": 1_000_000, "status": "ACTIVE"
        }
    });
    assert_eq!(health, want);
}
