//! What this process has: threads, descriptors, memory, children, listening sockets.
//!
//! Read from `/proc`; a number that cannot be read is an error, never a zero.

use std::collections::HashSet;
use std::fs;
use std::io;

use crate::case::Finding;

/// What a module could leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    /// Resident, in KiB.
    pub(crate) memory: usize,
}

impl Holdings {
    pub(crate) fn now() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        Ok(Self {
            threads: fs::read_dir("/proc/self/task")?.count(),
            descriptors: descriptors()?,
            memory: memory.ok_or_else(|| io::Error::other("/proc/self/status has no VmRSS"))?,
        })
    }
}

/// Open descriptors, without those of the kit's own databases: their pools come and go.
fn descriptors() -> io::Result<usize> {
    let mut count = 0_usize;
    for entry in fs::read_dir("/proc/self/fd")? {
        // The descriptor by which the directory is read is gone with it.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        count += usize::from(!target.to_string_lossy().contains("/state.db"));
    }
    Ok(count)
}

/// The ids of the processes that this one has started and not waited for, or has inherited.
pub(crate) fn children() -> io::Result<Vec<i32>> {
    children_of("self")
}

fn children_of(process: &str) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end while it is looked at.
        let Ok(text) = task.and_then(|task| fs::read_to_string(task.path().join("children")))
        else {
            continue;
        };
        all.extend(text.split_whitespace().filter_map(|id| id.parse::<i32>().ok()));
    }
    Ok(all)
}

/// The same with their children, and so on.
pub(crate) fn descendants() -> io::Result<Vec<i32>> {
    let mut all = children()?;
    let mut looked = 0;
    while let Some(process) = all.get(looked) {
        // It may have ended.
        let more = children_of(&process.to_string()).unwrap_or_default();
        all.extend(more);
        looked += 1;
    }
    Ok(all)
}

/// Those of the children that run: one that has ended, and that nobody has waited for, does not.
pub(crate) fn running_children() -> io::Result<Vec<i32>> {
    let mut all = children()?;
    all.retain(|child| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // The name is in parentheses and may contain anything.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        !matches!(state, None | Some('Z' | 'X'))
    });
    Ok(all)
}

/// How many TCP sockets this process listens on.
pub(crate) fn listening() -> io::Result<usize> {
    let mut own = HashSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')) {
            own.insert(inode.to_owned());
        }
    }
    let mut count = 0;
    for file in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let listens = text.lines().skip(1).filter(|line| {
            let mut words = line.split_whitespace().skip(3);
            // 0A is LISTEN; the inode is the tenth word.
            words.next() == Some("0A") && words.nth(5).is_some_and(|inode| own.contains(inode))
        });
        count += listens.count();
    }
    Ok(count)
}

/// Command lines and environments of the processes below this one, as every user of the machine can or root does
/// see them.
pub(crate) fn shown_of_children() -> Result<String, Finding> {
    let mut shown = String::new();
    for child in descendants()? {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{child}/{file}")).unwrap_or_default();
            shown.push_str(&String::from_utf8_lossy(&bytes));
            shown.push('\n');
        }
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_a_file_a_listener_and_a_child_are_seen() {
        let before = (Holdings::now().unwrap(), listening().unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || held.recv());
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let after = (Holdings::now().unwrap(), listening().unwrap());
        assert!(after.0.threads > before.0.threads && after.0.descriptors > before.0.descriptors);
        assert_eq!(after.1, before.1 + 1);
        let id = i32::try_from(child.id()).unwrap();
        assert!(children().unwrap().contains(&id));
        // A process that has just begun a program may not show its command line yet.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !shown_of_children().unwrap().contains("600") {
            assert!(std::time::Instant::now() < deadline, "the child's command line is not seen");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().unwrap().contains(&id));
        drop((listener, hold));
        let _ = thread.join();
    }
}
