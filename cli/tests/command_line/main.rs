//! The `undertone` binary as a user meets it.

#![allow(clippy::unwrap_used)]

mod bad_inputs;
#[cfg(feature = "client")]
mod encrypted;
mod exports;
mod one_bit;
mod outputs;
mod party;
mod search;
#[cfg(feature = "client")]
mod service;
mod simulation;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The project's root, where the shipped models stand.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What one call did.
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs the binary in the project's root.
fn undertone(arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_undertone"));
    let output = command.args(arguments).current_dir(root()).output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the binary and wants success with nothing on standard error.
fn success(arguments: &[&str]) -> String {
    let run = undertone(arguments);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{arguments:?}");
    run.out
}
