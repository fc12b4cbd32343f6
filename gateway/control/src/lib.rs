//! The part of the gateway that decides: it reads the configuration, drives IKE, and writes what was negotiated into
//! the maps, where the XDP program and the workers of the data plane find it.
//!
//! | module | holds |
//! |---|---|
//! | [`alarm`] | alarm templates, and the rules of Prometheus that are made of them |
//! | [`config`] | the TOML file as types; every mistake in it with its line, its field and what is allowed |
//! | [`resource`] | gateway, peers and tunnels one by one, as they are shown |
//! | [`store`] | where they are kept: SQLite, secrets sealed, every change checked against all else |
//! | [`spd`] | ordered policies compiled into the tables of the SPD, and the way from one to the other without a gap |
//! | [`sadb`] | which SA lies where in the maps, and what each tunnel has carried in all |
//! | [`tunnel`] | a tunnel's state: when it negotiates, what people see of it |
//! | [`log`] | what happened, to a tunnel and to the gateway itself: kept, and told to who follows |
//! | [`diagnose`] | why a tunnel does not do what it should |
//! | [`peer_config`] | the configuration of the other side, in its vendor's words |
//! | [`import`] | configurations of others, read into peers and tunnels |
//! | [`kept`] | what a later process needs to go on |
//! | [`bird`] | BIRD, which speaks BGP: what it is told, and what it tells |
//! | [`echo`] | echo requests of health checks, as packets |
//! | [`routes`] | routes to the remote subnets |
//! | [`maps`] | the maps as this crate uses them, behind a trait |
//! | [`memory`] | how the process allocates |
//! | [`status`] | what it says about itself |
//!
//! [`Control::start`] runs all of it in one task. The IKE endpoint has no socket and no clock; the task gives it both,
//! runs its Diffie-Hellman jobs on threads of their own, and does what its events say. A packet whose tunnel has no SA is
//! dropped, whether `control` runs or not: policies and routes stay when it stops.

pub mod alarm;
pub mod bird;
pub mod config;
mod daemon;
pub mod diagnose;
pub mod echo;
pub mod import;
pub mod kept;
mod links;
pub mod log;
pub mod maps;
pub mod memory;
mod nic;
pub mod peer_config;
pub mod resource;
pub mod routes;
mod rules;
pub mod sadb;
pub mod spd;
pub mod status;
pub mod store;
mod toml;
pub mod tunnel;

pub use config::{Config, ConfigError};
pub use daemon::{
    Action, ActionError, Control, ControlError, Options, PeerFilesError, Rekey, ReloadError, Reloaded,
    Stopped, own_document,
};
