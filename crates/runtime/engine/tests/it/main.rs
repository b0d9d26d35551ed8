//! The engine on a real store, in virtual time: nothing here sleeps.

mod fixture;
mod leases;
mod lifecycle;
mod nodes;
mod pressure;
mod publishing;
mod queue;
mod reactive;
mod storm;
mod ticks;
mod turns;
mod watched;
mod windows;
