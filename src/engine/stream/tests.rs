//! What calls do when no more is loaded than they ask for.
