//! The engine on a real store, in virtual time: nothing here sleeps.

mod fixture;
mod leases;
mod lifecycle;
mod publishing;
mod reactive;
mod storm;
mod ticks;
mod watched;
mod windows;
