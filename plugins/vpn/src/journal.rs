//! What this module has changed on the machine, written down before it is changed.
//!
//! A host that was killed cannot put things back; whoever comes next reads the journal and does:
//! the module itself on its next start, or `privatix module cleanup`. An entry is removed when what
//! it says is undone. Devices are not in it that vanish with their process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use privatix_plugin_api::files;
use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::routing::Routing;
use crate::run::{self, RunError};

/// How long a killed process may take to be gone.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Entry {
    /// A process; the start time tells it from a later one with its number.
    Process { pid: i32, started: u64 },
    /// A table of nftables; of a kill switch, whose it is and what it lets through to the agent.
    Table {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kill_switch: Option<ClientKey>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        agent: Vec<IpAddr>,
    },
    /// Rules and routes of a channel; of a kill switch, whose it is.
    Routing {
        routing: Routing,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kill_switch: Option<ClientKey>,
    },
    /// A network device that outlives its process.
    Device { name: String },
    /// A kernel setting; put back if it is still as it was set.
    Setting { path: PathBuf, before: String, set: String },
    /// A file; put back if it is still as it was written.
    Text { path: PathBuf, before: String, set: String },
}

/// Why the journal cannot be kept, or something not be undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("reading the journal {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the journal {} is damaged; what it said has to be undone by hand", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("writing the journal {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the process {0} does not end")]
    Lives(i32),
    #[error("putting {} back", path.display())]
    PutBack {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Run(#[from] RunError),
}

/// The journal of one data directory.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
}

impl Journal {
    /// Reads what is there.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, JournalError> {
        let path = data_dir.join("journal.json");
        let entries = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| JournalError::Damaged { path: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(JournalError::Read { path, source }),
        };
        Ok(Self { path, entries: Mutex::new(entries) })
    }

    /// Notes what is about to be changed; it is on disk when this returns.
    pub(crate) fn note(&self, entry: Entry) -> Result<(), JournalError> {
        let mut entries = self.entries();
        if entries.contains(&entry) {
            return Ok(());
        }
        if let Entry::Table { name: made, .. } = &entry {
            // It takes the place of the one before it.
            entries.retain(|known| !matches!(known, Entry::Table { name, .. } if name == made));
        }
        if let Entry::Routing { routing: Routing { table: made, .. }, .. } = &entry {
            entries.retain(
                |known| !matches!(known, Entry::Routing { routing, .. } if routing.table == *made),
            );
        }
        entries.push(entry);
        self.write(&entries)
    }

    /// Undoes one entry and strikes it out. What is undone already is no error.
    pub(crate) async fn undo(&self, entry: &Entry) -> Result<(), JournalError> {
        entry.undo().await?;
        self.strike(entry)
    }

    /// Strikes an entry out whose change is gone by itself.
    pub(crate) fn strike(&self, entry: &Entry) -> Result<(), JournalError> {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|known| known != entry);
        if entries.len() == before { Ok(()) } else { self.write(&entries) }
    }

    /// Undoes all entries that are not to be kept, the last first. One that cannot be undone stays
    /// and does not keep the others from it. What was undone is said.
    pub(crate) async fn recover(
        &self,
        keep: impl Fn(&Entry) -> bool,
    ) -> (Vec<String>, Option<JournalError>) {
        let entries = self.all();
        let (mut done, mut problem) = (Vec::new(), None);
        for entry in entries.iter().rev().filter(|entry| !keep(entry)) {
            match self.undo(entry).await {
                Ok(()) => done.push(entry.undone()),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        (done, problem)
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.entries().clone()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, entries: &[Entry]) -> Result<(), JournalError> {
        let written =
            || files::replace(&self.path, serde_json::to_string_pretty(entries)?.as_bytes());
        written().map_err(|source| JournalError::Write { path: self.path.clone(), source })
    }
}

/// A new or emptied file that only its owner can read.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

impl Entry {
    /// A process that runs now; `None` if it has ended.
    pub(crate) fn process(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self::Process { pid, started: started(pid)? })
    }

    async fn undo(&self) -> Result<(), JournalError> {
        match self {
            Self::Process { pid, started } => end(*pid, *started).await,
            Self::Table { name, .. } => {
                // Made first, so that one that is not there can be deleted as well.
                run::nft(&format!("table inet {name} {{}}\ndelete table inet {name}\n")).await?;
                Ok(())
            }
            Self::Routing { routing, .. } => Ok(routing.lower().await?),
            Self::Device { name } => {
                if Path::new("/sys/class/net").join(name).exists() {
                    run::run("ip", &["link", "delete", name]).await?;
                }
                Ok(())
            }
            Self::Setting { path, before, set } | Self::Text { path, before, set } => {
                put_back(path, before, set)
                    .map_err(|source| JournalError::PutBack { path: path.clone(), source })
            }
        }
    }

    fn undone(&self) -> String {
        match self {
            Self::Process { pid, .. } => format!("process {pid} ended"),
            Self::Table { name, kill_switch: None, .. } => format!("nftables table {name} removed"),
            Self::Table { name, kill_switch: Some(channel), .. } => {
                format!("kill switch {name} of channel {channel} lifted")
            }
            Self::Routing { routing, .. } => {
                format!("routing into {} removed", routing.device)
            }
            Self::Device { name } => format!("network device {name} removed"),
            Self::Setting { path, before, .. } => {
                format!("{} is {} again", path.display(), before.trim())
            }
            Self::Text { path, .. } => format!("{} is as it was", path.display()),
        }
    }
}

/// Writes a file in place: it may be mounted where it is, or be the kernel's.
pub(crate) fn write_in_place(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path)?.write_all(text.as_bytes())
}

fn put_back(path: &Path, before: &str, set: &str) -> io::Result<()> {
    match fs::read_to_string(path) {
        Ok(now) if now.trim() == set.trim() => write_in_place(path, before),
        // Somebody else has changed it since, and knows why.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Kills a process and waits until it is gone.
async fn end(pid: i32, start: u64) -> Result<(), JournalError> {
    let lives = || started(pid) == Some(start);
    if !lives() {
        return Ok(());
    }
    // It may end in this very moment.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let until = tokio::time::Instant::now() + GRACE;
    while lives() {
        if tokio::time::Instant::now() > until {
            return Err(JournalError::Lives(pid));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// When a process was started, in ticks since the machine was; `None` if it is gone or a zombie.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("started")
    }

    #[tokio::test]
    async fn what_is_noted_survives_and_is_undone_last_first() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("file");
        let other = home.path().join("other");
        fs::write(&file, "old").expect("written");
        fs::write(&other, "old").expect("written");
        let mut child = sleeper();
        let text = |path: &Path| Entry::Text {
            path: path.to_owned(),
            before: "old".into(),
            set: "new".into(),
        };
        {
            let journal = Journal::open(home.path()).expect("opened");
            journal.note(Entry::process(child.id()).expect("running")).expect("noted");
            for path in [&file, &other] {
                journal.note(text(path)).expect("noted");
                journal.note(text(path)).expect("noted");
            }
            write_in_place(&file, "new").expect("written");
            write_in_place(&other, "of somebody else").expect("written");
        }
        let journal = Journal::open(home.path()).expect("opened");
        assert_eq!(journal.all().len(), 3);
        let (done, problem) = journal.recover(|entry| *entry == text(&other)).await;
        assert!(problem.is_none(), "{problem:?}");
        let expected =
            [format!("{} is as it was", file.display()), format!("process {} ended", child.id())];
        assert_eq!(done, expected);
        assert_eq!(fs::read_to_string(&file).expect("there"), "old");
        assert!(!child.wait().expect("waited").success());
        assert_eq!(Journal::open(home.path()).expect("opened").all(), [text(&other)]);
        journal.undo(&text(&other)).await.expect("nothing to do");
        assert_eq!(fs::read_to_string(&other).expect("there"), "of somebody else");
        let mode = fs::metadata(home.path().join("journal.json")).expect("there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_later_process_with_the_same_number_is_left_alone() {
        let mut child = sleeper();
        let Some(Entry::Process { pid, started }) = Entry::process(child.id()) else {
            panic!("not running")
        };
        Entry::Process { pid, started: started + 1 }.undo().await.expect("nothing to do");
        assert!(child.try_wait().expect("waited").is_none());
        Entry::Process { pid, started }.undo().await.expect("ended");
        assert!(!child.wait().expect("waited").success());
        Entry::Process { pid, started }.undo().await.expect("ended already");
    }

    #[test]
    fn a_damaged_journal_is_not_taken_for_an_empty_one() {
        let home = tempfile::tempdir().expect("a directory");
        fs::write(home.path().join("journal.json"), "[{\"what\":").expect("written");
        let error = Journal::open(home.path()).expect_err("damaged");
        assert!(error.to_string().contains("by hand"), "{error}");
    }
}
