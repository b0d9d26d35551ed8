//! Binance spot: market data by REST and by combined streams.
//!
//! * [`wire`]: the shapes on the wire, shared with the simulator; [`parse_klines`] reads a page.
//! * [`BinanceClient`]: the requests, with retries over the venue's hosts.
//! * [`Credentials`]: who signs the requests about an account, and where the secret is read from.
//! * [`Limiter`]: the weight budget and the bans, shared by all clones of a client.
//! * [`backpressure`]: how the venue is doing.
//! * [`Streams`]: the WebSocket side.
//!
//! Every error is a [`VenueError`] and tells by its [`Class`] what to do.

pub mod backpressure;
mod client;
mod config;
mod endpoints;
mod error;
mod interval;
mod klines;
mod limiter;
mod signed;
mod stream;
mod stream_wire;
pub mod wire;

pub use backpressure::{Health, State};
pub(crate) use client::chain;
pub use client::{BinanceClient, CallRecord, CallStatus, Observer, Skew};
pub use config::{Config, ConfigError};
pub use endpoints::{AggFrom, Page};
pub use error::{Call, Class, VenueError};
pub(crate) use error::{Verdict, judge};
pub use klines::{Asked, parse_klines};
pub(crate) use limiter::Permit as WeightPermit;
pub use limiter::{Limiter, Priority, Shares, Stop};
pub use signed::{
    AccountBalance, AccountTrade, ConvertTrade, Credentials, CredentialsError,
    LONGEST_CONVERT_SPAN, TradesSince,
};
pub use stream::Streams;
pub use stream_wire::{Frame, Stream, StreamEvent, StreamKline, StreamTrade, parse_frame};
