//! fhirsim
pub mod cli;
pub mod clock;
pub mod config;
pub mod fhir;
pub mod http;
pub mod index;
pub mod interaction;
pub mod query;
pub mod search;
pub mod sim;
pub mod simdb;
