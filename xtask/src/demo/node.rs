//! A host: the real binary in a home directory of its own, asked through its command line.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::signals;
use super::stage::wait;
use crate::cargo::{Outcome, repository};

pub(super) struct Node {
    /// As it is called in what is shown.
    pub(super) role: &'static str,
    pub(super) home: PathBuf,
    binary: PathBuf,
    child: Option<Child>,
    /// The network namespace it runs in, if not this one.
    namespace: Option<String>,
}

impl Node {
    pub(super) fn new(role: &'static str, binaries: &Path, directory: &Path) -> Self {
        let (home, binary) = (directory.join(role), binaries.join("privatix"));
        Self { role, home, binary, child: None, namespace: None }
    }

    /// Has it run in a network namespace.
    pub(super) fn inside(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    pub(super) fn init(&self) -> Outcome {
        self.run(&["init", "--role", self.role])
    }

    /// Sets a key of a section of the file that `init` has written.
    pub(super) fn set(&self, section: &str, key: &str, value: &str) -> Outcome {
        let (header, start) = (format!("[{section}]"), format!("{key} = "));
        let (mut inside, mut found) = (false, false);
        self.edit(|text| {
            let lines = text.lines().map(|line| {
                if line.starts_with('[') {
                    inside = line == header;
                }
                if !inside || !line.starts_with(&start) {
                    return format!("{line}\n");
                }
                found = true;
                format!("{start}{value}\n")
            });
            lines.collect()
        })?;
        if found { Ok(()) } else { Err(format!("{key} is not in {header} of the file")) }
    }

    /// Adds a section to the file that `init` has written.
    pub(super) fn add(&self, section: &str) -> Outcome {
        self.edit(|text| format!("{text}\n{section}"))
    }

    fn edit(&self, change: impl FnOnce(String) -> String) -> Outcome {
        let path = self.home.join("privatix.toml");
        let edited = fs::read_to_string(&path).map(change).and_then(|text| fs::write(&path, text));
        edited.map_err(|error| format!("editing {}: {error}", path.display()))
    }

    /// Runs the host until it answers.
    pub(super) fn start(&mut self) -> Outcome {
        let log = self.home.join("host.log");
        let log = File::create(&log).map_err(|e| format!("making {}: {e}", log.display()))?;
        let mut command = self.command(&["run"]);
        // In a group of its own it does not hear of Ctrl-C; this demo decides when it ends.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = signals::let_through(|| command.spawn());
        self.child = Some(child.map_err(|error| format!("{}: {error}", self.binary.display()))?);
        wait("an answer from the host", || {
            let answer = self.ask(&["module", "list"]);
            self.is_alive()?;
            Ok(answer.map(drop))
        })
    }

    fn is_alive(&mut self) -> Outcome {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        ended.map_or(Ok(()), |status| Err(format!("the {}'s host has ended: {status}", self.role)))
    }

    /// A command's answer.
    pub(super) fn ask(&self, arguments: &[&str]) -> Outcome<Value> {
        let output = self.output(self.command(arguments).arg("--json"))?;
        serde_json::from_slice(&output).map_err(|error| format!("{arguments:?} answered: {error}"))
    }

    /// Has a command do something.
    pub(super) fn run(&self, arguments: &[&str]) -> Outcome {
        self.output(&mut self.command(arguments)).map(drop)
    }

    /// A text field of a command's answer.
    pub(super) fn ask_for(&self, arguments: &[&str], field: &str) -> Outcome<String> {
        let answer = self.ask(arguments)?;
        let text = answer[field].as_str().map(str::to_owned);
        text.ok_or_else(|| format!("{arguments:?} answered without {field}: {answer}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(&self.binary),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.binary);
                command
            }
        };
        // Settings in the user's environment are not meant for the demo's hosts.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PRIVATIX_") {
                command.env_remove(name);
            }
        }
        command.arg("--home").arg(&self.home).args(arguments);
        command
    }

    fn output(&self, command: &mut Command) -> Outcome<Vec<u8>> {
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("{}: {error}", self.binary.display()))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("`privatix {}` ended with {}: {}", words.join(" "), output.status, said.trim()))
    }

    /// Puts a file into the plugins directory.
    fn drop_in(&self, source: &Path) -> Outcome {
        let place = self.home.join("plugins").join(source.file_name().unwrap_or_default());
        let copy = || -> io::Result<u64> {
            // The mode of the source may let others write, which the host refuses.
            let mut options = OpenOptions::new();
            let mut to = options.write(true).create_new(true).mode(0o600).open(&place)?;
            io::copy(&mut File::open(source)?, &mut to)
        };
        copy().map(drop).map_err(|error| {
            format!("copying {} to {}: {error}", source.display(), place.display())
        })
    }

    /// Has the host sell what a module serves, on these terms; the offering's hash.
    pub(super) fn offer(&self, module: &str, fields: &Value) -> Outcome<String> {
        let path = self.home.join("offering.json");
        let written = fs::write(&path, fields.to_string());
        written.map_err(|error| format!("writing {}: {error}", path.display()))?;
        let path = path.to_string_lossy();
        self.ask_for(&["offering", "create", module, "--fields", &path], "hash")
    }

    /// Drops a module's package into the running host and waits until it runs; the states it went
    /// through. The library comes last, so that the module is whole when it is taken up: a client's
    /// would run without the offering template, and learn of it a moment later.
    pub(super) fn install(&self, name: &str, binaries: &Path) -> Outcome<String> {
        if let Some((state, _)) = self.module(name)? {
            return Err(format!("expected no module yet, found it {state}"));
        }
        let templates = repository().join("templates");
        self.drop_in(&templates.join(format!("{name}.access.json")))?;
        self.drop_in(&templates.join(format!("{name}.offering.json")))?;
        self.drop_in(&binaries.join(format!("lib{name}.so")))?;
        let mut states: Vec<String> = Vec::new();
        wait("the module to be running", || {
            let Some((state, problem)) = self.module(name)? else {
                return Ok(Err("no module".into()));
            };
            if states.last() != Some(&state) {
                states.push(state.clone());
            }
            if ["refused", "failed"].contains(&&*state) {
                return Err(format!("expected the module to be running, it is {state}: {problem}"));
            }
            Ok(if state == "running" { Ok(()) } else { Err(format!("{state}: {problem}")) })
        })?;
        Ok(states.join(", "))
    }

    /// The state of a module, if there is one of this name, and why it is in it.
    fn module(&self, name: &str) -> Outcome<Option<(String, String)>> {
        let modules = self.ask(&["module", "list"])?;
        let mut modules = modules.as_array().into_iter().flatten();
        Ok(modules.find(|module| module["name"] == name).map(|module| {
            let state = module["state"].as_str().unwrap_or_default().to_owned();
            (state, module["problem"].to_string())
        }))
    }

    /// Waits until a channel has a status here.
    pub(super) fn wait_channel(&self, channel: &str, status: &str) -> Outcome {
        wait(&format!("the {}'s channel to be {status}", self.role), || {
            let view = self.ask(&["channel", "show", channel])?;
            Ok(if view["status"] == status { Ok(()) } else { Err(view.to_string()) })
        })
    }

    /// Stops the host, at the latest by killing it.
    pub(super) fn stop(&mut self) -> Outcome {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Ok(pid) = i32::try_from(child.id()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let ended = super::stage::outlast(|| child.try_wait().ok().flatten());
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the {}'s host ended with {status}", self.role)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("the {}'s host did not stop and was killed", self.role))
            }
        }
    }

    /// Kills the host without a word.
    pub(super) fn kill(&mut self) -> Outcome {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(drop).map_err(|error| format!("killing the {}'s host: {error}", self.role))
    }

    pub(super) fn pid(&self) -> Option<String> {
        self.child.as_ref().map(|child| child.id().to_string())
    }

    /// How a person begins a command to it.
    pub(super) fn shown(&self) -> String {
        format!("{} --home {}", self.binary.display(), self.home.display())
    }

    pub(super) fn log_tail(&self, lines: usize) -> String {
        let log = fs::read_to_string(self.home.join("host.log")).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
