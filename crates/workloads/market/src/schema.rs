//! The tables of this workload: its own line of migrations.

use watchbell_db::{Line, Migration};

/// The line `market`.
pub const LINE: Line = Line {
    name: "market",
    migrations: &[
        Migration { number: 1, name: "market", sql: include_str!("migrations/0001_market.sql") },
        Migration {
            number: 2,
            name: "immutable",
            sql: include_str!("migrations/0002_immutable.sql"),
        },
    ],
};
