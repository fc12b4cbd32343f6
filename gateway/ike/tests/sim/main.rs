//! Two endpoints in a simulated world: virtual time, a network with faults, a NAT. Everything comes from a
//! seed.

mod childless;
mod collisions;
mod followup;
mod fragments;
mod garbage;
mod handshake;
mod intermediate;
mod lifecycle;
mod limits;
mod mismatch;
mod ppk;
mod protocols;
mod reauthentication;
mod rekey;
mod restarts;
mod resume;
mod schedules;
mod strangers;
mod v1;
mod v1_fragments;
mod v1_mismatch;
mod v1_pairs;
mod v1_siblings;
mod v1_strangers;
mod world;
