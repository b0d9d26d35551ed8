//! The real binary, from outside: what it prints, what it promises, and what is left of its promises
//! when it is killed at any moment.

mod architecture;
mod bad_input;
mod demo;
mod exec;
mod harness;
mod killed;
mod market;
mod moves;
mod node;
mod nodes;
mod scans;
mod schedulers;
mod server;
