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
        Migration {
            number: 3,
            name: "matrices",
            sql: include_str!("migrations/0003_matrices.sql"),
        },
        Migration { number: 4, name: "mood", sql: include_str!("migrations/0004_mood.sql") },
        Migration { number: 5, name: "cin", sql: include_str!("migrations/0005_cin.sql") },
        Migration { number: 6, name: "streams", sql: include_str!("migrations/0006_streams.sql") },
        Migration { number: 7, name: "ops", sql: include_str!("migrations/0007_ops.sql") },
        Migration { number: 8, name: "newest", sql: include_str!("migrations/0008_newest.sql") },
        Migration { number: 9, name: "rowids", sql: include_str!("migrations/0009_rowids.sql") },
        Migration { number: 10, name: "ingest", sql: include_str!("migrations/0010_ingest.sql") },
        Migration { number: 11, name: "account", sql: include_str!("migrations/0011_account.sql") },
        Migration { number: 12, name: "views", sql: include_str!("migrations/0012_views.sql") },
    ],
};
