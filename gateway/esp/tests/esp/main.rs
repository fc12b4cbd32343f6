//! The engine from outside: round trips, hostile input, and packets of an independent implementation.

mod ah;
mod backends;
mod golden;
mod hostile;
mod round_trip;
mod sa;
mod setup;
mod stripping;
