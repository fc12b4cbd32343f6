//! The matrix of cases against real peers, and what runs it.
//!
//! | module | holds |
//! |---|---|
//! | [`case`] | what a case is, and the configuration of both ends that follows from it |
//! | [`proposal`] | strongSwan's proposals in Adit's words |
//! | [`matrix`] | every case |
//! | [`station`] | a network with both gateways running, used by case after case |
//! | [`show`] | what a case does, and what must hold |
//! | [`table`] | the matrix as a table, on the terminal, in `docs/interop.md` and as JSON |

pub mod case;
pub mod matrix;
pub mod proposal;
pub mod show;
pub mod station;
pub mod table;
