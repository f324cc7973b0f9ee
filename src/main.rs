//! The program `freshet`: start and exit code.

fn main() {}
