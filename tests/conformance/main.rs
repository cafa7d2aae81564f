//! What core promises of any layer, checked against layers of every format, hand-written ones and
//! hosts that answer in every manner.

mod hostile;
mod image;
mod reading;
mod rows;
mod seeds;
mod tree;
