//! The connection: protocol, limits, users, and the end of the program.

mod acl;
mod acl_file;
mod certificates;
mod clients;
mod drain;
mod edges;
mod limits;
mod observation;
mod protocol;
mod siege;
mod users;
