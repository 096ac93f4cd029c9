//! Has the linker make the program that is installed smaller, where it can: equal functions
//! and ends of strings once, and relative relocations as bits (DT_RELR; glibc 2.36). Each
//! flag is tried with a program of nothing, which has to run: a package for older systems
//! is built on one.

#![allow(
    clippy::disallowed_methods,
    reason = "it runs before there is an agent, and knows its surroundings by these alone"
)]

use std::{env, path::Path, process::Command};

const FLAGS: [&str; 3] = ["-Wl,-z,pack-relative-relocs", "-Wl,--icf=all", "-Wl,-O2"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name| env::var(name).unwrap_or_default();
    let is_small = variable("OPT_LEVEL") == "s";
    if !is_small || variable("HOST") != variable("TARGET") {
        return;
    }
    let folder = variable("OUT_DIR");
    for flag in FLAGS {
        if works(Path::new(&folder), flag) {
            println!("cargo:rustc-link-arg-bin=agent={flag}");
        }
    }
}

/// Whether a program that is linked with this flag runs here.
fn works(folder: &Path, flag: &str) -> bool {
    let (source, program) = (folder.join("nothing.rs"), folder.join("nothing"));
    if std::fs::write(&source, "fn main() {}").is_err() {
        return false;
    }
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let made = Command::new(compiler)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .arg(format!("-Clink-arg={flag}"))
        .output();
    let made = made.is_ok_and(|made| made.status.success());
    made && Command::new(&program)
        .status()
        .is_ok_and(|ran| ran.success())
}
