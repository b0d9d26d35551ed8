//! Tests of the venue clients and of the simulator, in one binary.

mod binance_client;
mod binance_payloads;
mod binance_stream;
mod native_client;
mod native_payloads;
mod native_recordings;
mod native_sims;
mod signed;
mod sim_server;
mod venue_sims;
