//! The program: arguments, signals, exit code.

fn main() {}
