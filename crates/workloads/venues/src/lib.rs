//! Clients of exchanges, and a venue simulator that answers as they do.
//!
//! * [`binance`]: the spot client of Binance. Candles, tickers, books and trades by REST; the combined
//!   streams by WebSocket. It stays within 80 % of the venue's request budget, knows when it is banned,
//!   and refuses a page in which anything is wrong rather than pass half of it on.
//! * [`sim`]: the venue simulator. It serves recorded candles under the venue's own rules of range,
//!   weight and error, with faults by script, so that every failure of the client has a test.
//! * [`native`]: what a scan reads from the exchanges themselves, in types that an aggregator cannot have.
//! * [`http`]: how the HTTP client is built, in one place.
//!
//! Every client takes a [`watchbell_clock::Clock`] and a base URL. With a virtual clock and a simulator
//! on the loopback, a day of synchronisation runs in seconds.

pub mod binance;
pub mod http;
pub mod native;
pub mod sim;
