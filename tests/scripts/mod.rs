//! Scripts: as Redis answers them, and what becomes of them when things go wrong.

mod containment;
mod differential;
mod functions;
mod lasting;
mod money;
mod random;
mod undeclared;
