//! The node agent: turns Service objects into map contents and keeps the programs attached.
//!
//! Data goes one way: sources -> model -> resolve -> compile -> plan -> apply. Only the two ends touch the system.

pub mod agent;
pub mod announce;
pub mod apply;
pub mod attach;
pub mod check;
pub mod cli;
pub mod client;
pub mod command;
pub mod compile;
pub mod config;
pub mod control;
pub mod controllers;
pub mod datapath;
pub mod events;
pub mod expire;
pub mod flows;
pub mod hash;
pub mod health;
pub mod kernel;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod probe;
pub mod reconcile;
pub mod reports;
pub mod reserve;
pub mod resolve;
pub mod simulate;
pub mod sockets;
pub mod sorted;
pub mod sources;
pub mod sys;
mod whole_file;
