//! Random layers, calls and documents against plain models of them.

mod json;
mod layers;
