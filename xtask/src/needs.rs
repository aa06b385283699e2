//! What the tests need beyond cargo: a table, and how each is got.
//!
//! Nothing is fetched that is there. Whatever cannot be had is named together with what is skipped
//! for want of it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cargo::{Outcome, step};

/// Something to be there.
pub(crate) struct Need {
    pub(crate) name: &'static str,
    /// A command that succeeds where it is there.
    seen_by: &'static [&'static str],
    source: Source,
    /// The steps that cannot be done without it.
    pub(crate) steps: &'static [&'static str],
    /// The tests that cannot run without it: those whose names contain one of these.
    pub(crate) tests: &'static [&'static str],
}

/// Where to get something.
#[derive(Clone, Copy)]
enum Source {
    /// A package of Debian's.
    Apt(&'static str),
    /// A component of the toolchain.
    Rustup(&'static str),
    /// The machine itself; it cannot be installed.
    Machine(&'static str),
}

const TABLE: [Need; 10] = [
    Need {
        name: "a C compiler",
        seen_by: &["cc", "--version"],
        source: Source::Apt("gcc"),
        steps: &[crate::test::BUILD],
        tests: &[],
    },
    Need {
        name: "rustfmt",
        seen_by: &["cargo", "fmt", "--version"],
        source: Source::Rustup("rustfmt"),
        steps: &[crate::test::FORMAT],
        tests: &[],
    },
    Need {
        name: "clippy",
        seen_by: &["cargo", "clippy", "--version"],
        source: Source::Rustup("clippy"),
        steps: &[crate::test::LINTS],
        tests: &[],
    },
    tool("openvpn", &["sh", "-c", "command -v openvpn"], "openvpn"),
    tool("nft", &["nft", "--version"], "nftables"),
    tool("ip", &["ip", "-Version"], "iproute2"),
    tool("iperf3", &["iperf3", "--version"], "iperf3"),
    Need {
        name: "python3",
        // With its standard library, of which Debian's python3-minimal has a part.
        seen_by: &["python3", "-c", "import hmac, json, urllib.request, uuid"],
        source: Source::Apt("python3"),
        steps: &[],
        tests: &["in_python"],
    },
    Need {
        name: "strip",
        seen_by: &["strip", "--version"],
        source: Source::Apt("binutils"),
        steps: &[],
        tests: &["strip_breaks_the_seal"],
    },
    Need {
        name: "root with network namespaces and tun",
        // Nothing stays of it.
        seen_by: &[
            "unshare",
            "--net",
            "sh",
            "-c",
            "ip tuntap add mode tun name probe0 && nft add table inet probe",
        ],
        source: Source::Machine("as root, on a kernel with namespaces, nf_tables and /dev/net/tun"),
        steps: &[crate::test::DEMO_VPN],
        tests: &["vpn_", "in_a_namespace"],
    },
];

/// A program that the VPN and its tests run.
const fn tool(name: &'static str, seen_by: &'static [&'static str], package: &'static str) -> Need {
    let steps = &[crate::test::DEMO_VPN];
    Need { name, seen_by, source: Source::Apt(package), steps, tests: &["vpn_"] }
}

/// Gets what is missing; returns what is missing still.
pub(crate) fn missing() -> Vec<&'static Need> {
    let absent = TABLE.iter().filter(|need| !succeeds(need.seen_by));
    absent.filter(|need| !need.install()).collect()
}

/// Whether the better test runner is there; cargo's own does where it is not.
pub(crate) fn nextest() -> bool {
    succeeds(&["cargo", "nextest", "--version"])
}

impl Need {
    /// Tries to get it; whether it is there then.
    fn install(&self) -> bool {
        let tried: Outcome = match self.source {
            Source::Rustup(component) if succeeds(&["rustup", "--version"]) => step(
                &format!("installing {}", self.name),
                Command::new("rustup").args(["component", "add", component]),
            ),
            Source::Apt(package) if succeeds(&["apt-get", "--version"]) && is_root() => {
                let mut apt = Command::new("sh");
                // A new machine may not know yet which packages there are.
                let install = "apt-get install --yes \"$1\" || \
                               { apt-get update && apt-get install --yes \"$1\"; }";
                apt.args(["-c", install, "sh", package]).stdout(Stdio::null());
                step(&format!("installing {}", self.name), &mut apt)
            }
            _ => return false,
        };
        if let Err(problem) = tried {
            eprintln!("xtask: {problem}");
        }
        succeeds(self.seen_by)
    }

    /// What does not run without it, and how to have it.
    pub(crate) fn without(&self) -> String {
        let tests = self.tests.iter().map(|name| format!("tests {name}"));
        let what: Vec<_> = self.steps.iter().map(|step| (*step).to_owned()).chain(tests).collect();
        let how = match self.source {
            Source::Apt(package) => format!("apt-get install {package}"),
            Source::Rustup(component) => format!("rustup component add {component}"),
            Source::Machine(what) => what.to_owned(),
        };
        format!("{}: {} is missing ({how})", what.join(", "), self.name)
    }
}

fn succeeds(command: &[&str]) -> bool {
    let [program, arguments @ ..] = command else { return false };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Packages are only installed without asking where nobody has to be asked.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|process| process.uid() == 0)
}
