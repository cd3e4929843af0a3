//! `docs/examples/client.py`, a client in another language that was written from `docs/wire.md` alone, against the real
//! server: what the page says is enough, and true.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it drives real processes"
)]

use std::io::ErrorKind;
use std::process::Command;

use ostrakon_tests::process::{NodeCommand, binary};
use ostrakon_tests::tidy::repository;

#[test]
fn a_client_in_python_gets_along_with_the_server() {
    let program = repository::root().join("docs/examples/client.py");
    // Only whether it can be started counts: some machines have a `python3` that installs itself when it is called.
    let version = Command::new("python3")
        .args(["-c", "import sys; sys.exit(sys.version_info < (3, 8))"])
        .status();
    match version {
        Ok(status) if status.success() => {}
        Ok(_) => return println!("SKIPPED: python3 is older than 3.8, or no Python"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return println!("SKIPPED: there is no python3 here");
        }
        Err(error) => panic!("python3 can't be started: {error}"),
    }
    let directory =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory is writable");
    let node = NodeCommand::new(binary::for_tests(), &directory.path().join("node"), 2)
        .start()
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    let output = Command::new("python3")
        .args(["-B", "-W", "error"])
        .arg(&program)
        .arg(node.address())
        .output()
        .expect("it was there a moment ago");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {said}\n{complained}",
        program.display()
    );
    assert_eq!(said.trim_end(), "ok", "{complained}");
}
