//! Puts this crate's `getrandom` where `dlsym` finds it: the standard library
//! and the getrandom crate look libc's up by name.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for targets in ["bins", "tests"] {
        println!("cargo:rustc-link-arg-{targets}=-Wl,--export-dynamic-symbol=getrandom");
    }
}
