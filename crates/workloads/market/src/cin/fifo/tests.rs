//! The golden sale, refusals, fees; and that nothing is lost, whatever is moved.

use proptest::prelude::*;

use super::*;

fn d(text: &str) -> Decimal {
    money::parse(text).unwrap()
}

fn n(units: i64) -> Decimal {
    Decimal::from(units)
}

/// A planned move without fee, at prices.
fn order(from: &str, to: &str, from_units: &str, to_units: &str, executed: &str) -> Order {
    Order {
        at: Time(10),
        from: from.into(),
        to: to.into(),
        from_units: d(from_units),
        to_units: d(to_units),
        executed: d(executed),
        fee: None,
        slippage: Decimal::ZERO,
        target: None,
        available: None,
        origin: Origin::Planned,
        notes: String::new(),
    }
}

fn traded(mut order: Order, id: i64) -> Order {
    order.origin = Origin::Trade { symbol: "X".into(), id, buy: true };
    order
}

/// Lots of BTC as (units, price), in this order, with the balance that they cost.
fn book(lots: &[(i64, i64)]) -> Book {
    let mut book = Book::default();
    let (mut cost, mut units) = (Decimal::ZERO, Decimal::ZERO);
    for (i, (u, p)) in lots.iter().enumerate() {
        let lot = Lot::whole(i as i64 + 1, Time(i as i64), None, n(*u), n(u * p));
        book.lots.entry("BTC".into()).or_default().push(lot);
        cost += n(u * p);
        units += n(*u);
    }
    book.last_lot = lots.len() as i64;
    book.balances.insert("BTC".into(), Balance::opening(cost, Decimal::ZERO, units));
    book
}

/// Section 12: lots 10@2 then 10@3; sell 15 at 4.
#[test]
fn the_golden_sale_uses_the_oldest_lots_first() {
    let mut b = book(&[(10, 2), (10, 3)]);
    let m = b.execute(order("BTC", "USDT", "15", "60", "60")).unwrap();
    assert_eq!(m.order.executed, n(60));
    assert_eq!(m.links.iter().map(|l| l.cost).sum::<Decimal>(), n(35));
    assert_eq!(m.p_in, Some(d("2.333333333333333333")));
    assert_eq!((m.trace, m.profit_consumed, m.principal_hit), (n(25), n(25), n(0)));
    let lots = &b.lots["BTC"];
    assert_eq!((lots[0].units_free, lots[0].cost_free), (n(0), n(0)));
    assert_eq!((lots[1].units_free, lots[1].cost_free), (n(5), n(15)));
    assert_eq!(lots[1].p_in().unwrap(), n(3));
    assert_eq!(
        m.links.iter().map(|l| (l.lot, l.units)).collect::<Vec<_>>(),
        [(1, n(10)), (2, n(5))]
    );
    // The gain is the source's profit before anything is taken, and the rest is its lots' cost.
    assert_eq!((m.comp_principal, m.comp_profit), (n(50), n(10)));
    assert_eq!((b.balances["BTC"].principal, b.balances["BTC"].profit), (n(0), n(15)));
    assert_eq!((b.balances["USDT"].principal, b.balances["USDT"].profit), (n(50), n(10)));
    assert_eq!((b.balances["BTC"].units, b.balances["USDT"].units), (n(5), n(60)));
    assert_eq!(m.residual_from_after, n(15));
    assert!(!m.overdrawn && !b.lots.contains_key("USDT"), "stablecoins have no lots");
}

#[test]
fn a_loss_hits_the_principal() {
    let mut b = book(&[(10, 4)]);
    let m = b.execute(order("BTC", "ETH", "10", "5", "30")).unwrap();
    assert_eq!((m.trace, m.profit_consumed, m.principal_hit), (n(-10), n(0), n(10)));
    let lot = &b.lots["ETH"][0];
    assert_eq!((lot.id, lot.origin, lot.units, lot.cost), (2, Some(1), n(5), n(30)));
    assert_eq!(b.balances["BTC"].value().unwrap(), n(0));
    assert_eq!(b.balances["ETH"].value().unwrap(), n(30));
}

#[test]
fn the_plan_is_the_lesser_of_target_and_what_there_is() {
    for (target, available, planned, dev_ref) in [
        (Some(40), Some(50), Some(40), 20),
        (Some(70), Some(50), Some(50), 10),
        (None, Some(50), Some(50), 10),
        (Some(80), None, Some(80), 0),
        (None, None, None, 0),
    ] {
        let mut b = book(&[(20, 3)]);
        let plan = Order {
            target: target.map(n),
            available: available.map(n),
            ..order("BTC", "USDT", "20", "60", "60")
        };
        let m = b.execute(plan).unwrap();
        assert_eq!((m.planned, m.dev_ref), (planned.map(n), n(dev_ref)), "{target:?}");
    }
}

#[test]
fn a_fee_is_taken_from_profit_first_and_then_from_principal() {
    let mut b = Book::default();
    b.balances.insert("USDT".into(), Balance::opening(n(100), n(3), n(103)));
    let fee = Fee { asset: "USDT".into(), units: n(5), value: n(5) };
    let m = b
        .execute(Order { fee: Some(fee.clone()), ..order("USDT", "BTC", "40", "4", "40") })
        .unwrap();
    let usdt = b.balances["USDT"];
    assert_eq!((usdt.principal, usdt.profit, usdt.units), (n(58), n(0), n(58)));
    assert_eq!((m.fee_trace, m.residual_from_after), (n(0), n(58)));
    // 58 are left: 58 and a fee of 5 are too much, and nothing changes.
    let before = b.clone();
    let refused = b.execute(Order { fee: Some(fee), ..order("USDT", "BTC", "58", "4", "58") });
    assert_eq!(
        refused.unwrap_err().to_string(),
        "INSUFFICIENT_BALANCE: USDT has 58 USDT, and the move needs 63: 58 and a fee of 5"
    );
    assert_eq!(b, before);
}

#[test]
fn a_fee_in_another_asset_is_a_disposal_of_that_asset() {
    let mut b = Book::default();
    b.open("USDT", Balance::opening(n(100), n(0), n(100)), Time(0), true).unwrap();
    b.open("BNB", Balance::opening(n(10), n(0), n(5)), Time(0), true).unwrap();
    // BNB has doubled: a fee of 1 BNB is worth 4 and had cost 2.
    let fee = Fee { asset: "BNB".into(), units: n(1), value: n(4) };
    let m = b.execute(Order { fee: Some(fee), ..order("USDT", "BTC", "40", "4", "40") });
    let m = m.unwrap();
    assert_eq!((m.trace, m.fee_trace), (n(0), n(2)));
    let bnb = b.balances["BNB"];
    assert_eq!((bnb.value().unwrap(), bnb.units), (n(8), n(4)));
    assert_eq!((b.lots["BNB"][0].units_free, b.lots["BNB"][0].cost_free), (n(4), n(8)));
    assert_eq!(b.balances["USDT"].value().unwrap(), n(60));
    assert!(m.links[0].fee && m.lot_units_used.is_zero());
    // One that takes no part in the session cannot pay: the source does.
    let fee = Fee { asset: "XRP".into(), units: n(7), value: n(3) };
    b.execute(Order { fee: Some(fee), ..order("USDT", "BTC", "40", "4", "40") }).unwrap();
    assert_eq!(b.balances["USDT"].value().unwrap(), n(17));
    assert!(!b.balances.contains_key("XRP"));
}

#[test]
fn planned_moves_are_refused_and_trades_are_flagged() {
    let mut b = book(&[(10, 2)]);
    let refused = b.execute(order("BTC", "USDT", "15", "30", "30")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "LOT_SHORTAGE: the lots of BTC hold 10 units, and the move needs 15"
    );
    let m = b.execute(traded(order("BTC", "USDT", "15", "60", "60"), 1)).unwrap();
    // 10 units had cost 20; the 5 that no lot had realise nothing.
    assert_eq!((m.overdrawn, m.trace, m.lot_units_used), (true, n(20), n(10)));
    assert_eq!(b.balances["BTC"].units, n(-5));
    // An asset that has no lots needs none.
    let m = b.execute(traded(order("DOGE", "USDT", "5", "5", "5"), 2)).unwrap();
    assert_eq!((m.overdrawn, m.trace, m.p_in), (true, n(0), None));
    assert_eq!(b.balances["DOGE"].value().unwrap(), n(-5));
}

#[test]
fn orders_that_mean_nothing_are_refused() {
    let mut b = book(&[(10, 2)]);
    for (bad, says) in [
        (order("BTC", "BTC", "1", "1", "1"), "BTC would move to itself"),
        (order("BTC", "USDT", "1", "1", "0"), "the executed amount is 0"),
        (order("BTC", "USDT", "-1", "1", "1"), "the units given is -1"),
        (Order { slippage: n(-1), ..order("BTC", "USDT", "1", "1", "1") }, "the slippage"),
    ] {
        let refused = b.execute(bad).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
    assert_eq!(b, book(&[(10, 2)]));
}

const ASSETS: [&str; 4] = ["USDT", "BTC", "ETH", "BNB"];

fn orders() -> impl Strategy<Value = Vec<Order>> {
    let e8 = |most: i64| (1..most).prop_map(|n| Decimal::new(n, 8));
    let one = (
        (0_usize..4, 1_usize..4, 0_usize..4, any::<bool>()),
        (e8(1 << 40), e8(1 << 40), e8(1 << 40), e8(1 << 30)),
    );
    prop::collection::vec(one, 1..40).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(i, ((from, step, fee, paid), (given, got, executed, cost)))| Order {
                at: Time(i as i64 / 3),
                from: ASSETS[from].into(),
                to: ASSETS[(from + step) % 4].into(),
                from_units: given,
                to_units: got,
                executed,
                fee: paid.then(|| Fee {
                    asset: ASSETS[fee].into(),
                    units: cost,
                    value: cost * Decimal::from(3),
                }),
                slippage: Decimal::ZERO,
                target: None,
                available: None,
                origin: Origin::Trade { symbol: "X".into(), id: i as i64, buy: true },
                notes: String::new(),
            })
            .collect()
    })
}

fn opened() -> Book {
    let mut book = Book::default();
    for (asset, units, price) in [("USDT", 5_000, 1), ("BTC", 40, 90), ("BNB", 700, 6)] {
        let balance = Balance::opening(n(units * price), n(0), n(units));
        book.open(asset, balance, Time(-1), true).unwrap();
    }
    book
}

proptest! {
    /// What went into lots is what came out of them and what is still there, to the last digit;
    /// and all balances together are the opening, the realised results, less the fees.
    #[test]
    fn units_and_cost_are_conserved(orders in orders()) {
        let mut book = opened();
        let opening = money::sum(book.balances.values().map(|b| b.value().unwrap())).unwrap();
        let mut moves = Vec::new();
        for order in orders {
            moves.push(book.execute(order).unwrap());
        }
        for (asset, lots) in &book.lots {
            for lot in lots {
                let links: Vec<_> =
                    moves.iter().flat_map(|m| &m.links).filter(|l| l.lot == lot.id).collect();
                let units = money::sum(links.iter().map(|l| l.units)).unwrap();
                let cost = money::sum(links.iter().map(|l| l.cost)).unwrap();
                prop_assert_eq!(add(units, lot.units_free).unwrap(), lot.units.normalize());
                prop_assert_eq!(add(cost, lot.cost_free).unwrap(), lot.cost.normalize());
                prop_assert!(lot.units_free >= Decimal::ZERO && lot.cost_free >= Decimal::ZERO);
                prop_assert!(!lot.units_free.is_zero() || lot.cost_free.is_zero());
            }
            // First in, first out: nothing is used before what came in earlier is used up.
            let open: Vec<_> = lots.iter().map(|l| l.units_free == l.units).collect();
            let first_whole = open.iter().position(|o| *o).unwrap_or(open.len());
            prop_assert!(open[first_whole..].iter().all(|o| *o), "{}", asset);
        }
        let fees = moves.iter().filter_map(|m| m.order.fee.as_ref()).map(|f| f.value);
        let fees = money::sum(fees).unwrap();
        let gains = money::sum(moves.iter().flat_map(|m| [m.trace, m.fee_trace])).unwrap();
        let now = money::sum(book.balances.values().map(|b| b.value().unwrap())).unwrap();
        prop_assert_eq!(now, sub(add(opening, gains).unwrap(), fees).unwrap());
    }
}
