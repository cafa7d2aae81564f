//! The component, run in Node.

mod layers;
mod node;
mod read;
mod refuse;
mod wit;
