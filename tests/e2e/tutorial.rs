//! `docs/tutorial.md`, as a newcomer would go through it: every command of the page, in its order.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::module::{repository, target};
use crate::support::wait_long;

/// The commands of a page: what stands in its blocks of `sh`.
fn commands(page: &str) -> String {
    let mut commands = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                commands.push_str(line);
                commands.push('\n');
            }
            _ => {}
        }
    }
    commands
}

#[test]
fn every_command_of_the_tutorial_works() {
    let page = fs::read_to_string(repository().join("docs/tutorial.md")).expect("the tutorial");
    let commands = commands(&page);
    assert!(commands.lines().count() > 20, "{commands}");
    let directory = tempfile::tempdir().expect("a directory");
    let (target, _) = target();
    let binaries = Path::new(env!("CARGO_BIN_EXE_privatix")).parent().expect("a directory");
    let path = std::env::var("PATH").expect("a PATH");
    let output = directory.path().join("output");
    let file = fs::File::create(&output).expect("created");
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-m", "-x", "-c", &commands]).current_dir(&directory);
    shell.env("PATH", format!("{}:{path}", binaries.display()));
    shell.env("PRIVATIX_SDK", repository());
    // The crate has its own target directory, as the page says; what it is built of is kept.
    shell.env_remove("CARGO_TARGET_DIR").env_remove("PRIVATIX_TEST_MODULES");
    shell.env("CARGO_BUILD_BUILD_DIR", target.join("tutorial"));
    // Nobody looks into it with a debugger, and it is checked twice.
    shell.env("CARGO_PROFILE_DEV_DEBUG", "0");
    // The repository's own dependencies are there.
    shell.env("CARGO_NET_OFFLINE", "true");
    shell.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
    let mut shell = shell.process_group(0).spawn().expect("bash runs");
    let status = wait_long(|| shell.try_wait().expect("waitable"));
    let group = Pid::from_raw(i32::try_from(shell.id()).expect("an id"));
    // Hosts that are left when a command has failed; usually there are none.
    let _ = killpg(group, Signal::SIGKILL);
    let text = fs::read_to_string(&output).expect("read");
    let status = status.unwrap_or_else(|| panic!("not over in time: {text}"));
    assert!(status.success(), "{status}: {text}");
    assert!(text.contains("tally conforms"), "{text}");
}
