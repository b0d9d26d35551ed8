//! The tables of this workload: its own line of migrations.

use watchbell_db::{Line, Migration};

/// The line `scan`. Its views read the runtime's tables, so it comes after the line of those.
pub const LINE: Line = Line {
    name: "scan",
    migrations: &[Migration {
        number: 1,
        name: "scan",
        sql: include_str!("migrations/0001_scan.sql"),
    }],
};
