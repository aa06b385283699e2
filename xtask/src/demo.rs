//! `cargo xtask demo`: two hosts on this machine, from an empty directory to a service that was
//! sold, used, suspended, resumed and ended.
//!
//! It does what two people would do, with the real binary, its command line and a SOCKS5 client
//! that knows nothing of the product. Each step either did what it should or ends the demo; every
//! wait is for a condition. Absent here: anything that only this demo could do with a host.

mod http;
mod node;
mod signals;
mod socks;
mod stage;
mod story;
pub(crate) mod vpn;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use self::http::Url;
use self::node::Node;
use self::stage::Stage;
use self::story::Story;
use crate::cargo::{Outcome, built, cargo, step};

/// Lines of each host's log that are shown after a failure.
const TAIL: usize = 25;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    keep: bool,
    release: bool,
    built: bool,
    vpn: bool,
    url: Option<String>,
}

impl Options {
    pub(crate) fn read(arguments: &[&str]) -> Outcome<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "--keep" => options.keep = true,
                "--release" => options.release = true,
                "--built" => options.built = true,
                "--vpn" => options.vpn = true,
                "--url" => {
                    let url = arguments.next().ok_or("--url needs a URL")?;
                    options.url = Some((*url).to_owned());
                }
                other => {
                    return Err(format!(
                        "demo knows --vpn, --keep, --url URL, --release and --built, not {other}"
                    ));
                }
            }
        }
        if options.vpn && (options.keep || options.url.is_some()) {
            return Err("--vpn goes with --release and --built alone".into());
        }
        Ok(options)
    }

    fn profile(&self) -> &'static str {
        if self.release { "release" } else { "debug" }
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    if options.vpn {
        return vpn::run(options);
    }
    let url = options.url.as_deref().map(Url::read).transpose()?;
    if !options.built {
        let mut build = cargo(&["build", "--locked", "-p", "privatix", "-p", "privatix-proxy"]);
        if options.release {
            build.arg("--release");
        }
        step("building", &mut build)?;
    }
    let binaries = built(options.profile())?;
    let _caught = signals::Caught::new()?;
    let directory = directory()?;
    let node = |role| Node::new(role, &binaries, &directory);
    let mut story = Story::new(Stage::new(), node("agent"), node("client"), binaries.clone(), url);
    let played = story.play(options.keep);
    let keep = options.keep && !signals::interrupted();
    if played.is_err() && !signals::interrupted() {
        for node in [&story.agent, &story.client] {
            eprintln!("\n--- the end of {}'s log\n{}", node.role, node.log_tail(TAIL));
        }
    }
    let cleared = if keep { kept(&story, &directory) } else { clear(&mut story, &directory) };
    played.and(cleared)
}

fn clear(story: &mut Story, directory: &Path) -> Outcome {
    let Story { stage, agent, client, .. } = story;
    let stopped = stage.ending("stopped both hosts and removed their directory", || {
        let stopped = client.stop().and(agent.stop());
        let removed = fs::remove_dir_all(directory);
        stopped?;
        removed.map_err(|error| format!("removing {}: {error}", directory.display()))
    });
    stage.close();
    stopped
}

/// Leaves all as it is and says what there is.
fn kept(story: &Story, directory: &Path) -> Outcome {
    let processes: Vec<_> = [&story.agent, &story.client].iter().filter_map(|n| n.pid()).collect();
    println!("\nBoth hosts go on running. Look around:");
    println!("  {} module list", story.agent.shown());
    if let Some((channel, port)) = &story.last {
        println!("  {} session list {channel}", story.agent.shown());
        println!("  {} channel show {channel}", story.client.shown());
        println!("The service, for any program that speaks SOCKS5:");
        println!("  curl --socks5-hostname {port} http://example.org/");
    }
    println!("Their logs are {}/*/host.log. To end it all:", directory.display());
    println!("  kill {} && rm -r {}", processes.join(" "), directory.display());
    Ok(())
}

/// A new directory that only this user can enter.
fn directory() -> Outcome<PathBuf> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("privatix-demo-{}-{}", std::process::id(), since.subsec_nanos());
    let path = std::env::temp_dir().join(name);
    let made = DirBuilder::new().mode(0o700).create(&path);
    made.map_err(|error| format!("making {}: {error}", path.display()))?;
    Ok(path)
}

/// The demo of what is built already, to be run as a step of another command.
pub(crate) fn command() -> Outcome<Command> {
    let mut command = Command::new(built("debug")?.join("xtask"));
    command.args(["demo", "--built"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn the_command_line() {
        let url = Some("http://example.org/".to_owned());
        for (arguments, expected) in [
            (&[][..], Some(Options::default())),
            (
                &["--keep", "--built"],
                Some(Options { keep: true, built: true, ..Options::default() }),
            ),
            (
                &["--url", "http://example.org/", "--release"],
                Some(Options { url, release: true, ..Options::default() }),
            ),
            (&["--vpn"], Some(Options { vpn: true, ..Options::default() })),
            (&["--vpn", "--keep"], None),
            (&["--url"], None),
            (&["--quick"], None),
        ] {
            assert_eq!(Options::read(arguments).ok(), expected, "{arguments:?}");
        }
    }
}
