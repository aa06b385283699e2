//! Runs the system's own programs: `nft`, `tc`, `ip`. They end at once, or are ended.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// How long such a program may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where programs of the system are, beside `PATH`.
const PLACES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("starting {program}")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} was not done within {DEADLINE:?}")]
    Late { program: String },
    #[error("{command}: {said}")]
    Failed { command: String, said: String },
}

/// Where a program is, if anywhere.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
    places.find_map(|place| Some(place.join(program)).filter(|path| path.is_file()))
}

/// A program to be started; the name itself where it is not found, which fails later with a reason.
pub(crate) fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| name.into())
}

/// Runs a program with arguments; what it wrote.
pub(crate) async fn run(name: &str, arguments: &[&str]) -> Result<String, RunError> {
    run_with(name, arguments, "").await
}

/// Runs a program that reads its orders from standard input.
pub(crate) async fn run_with(
    name: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String, RunError> {
    let command = || format!("{name} {}", arguments.join(" "));
    let start = |source| RunError::Start { program: name.to_owned(), source };
    let work = async {
        let mut child = Command::new(program(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("LC_ALL", "C")
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that reads nothing has ended; its status says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await.map_err(start)
    };
    let late = |_| RunError::Late { program: name.to_owned() };
    let output = timeout(DEADLINE, work).await.map_err(late)??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.split('\n').map(str::trim).filter(|line| !line.is_empty());
    let said = said.take(4).collect::<Vec<_>>().join("; ");
    Err(RunError::Failed { command: command().trim().to_owned(), said })
}

/// Hands a script to `nft`; all of it takes effect, or nothing.
pub(crate) async fn nft(script: &str) -> Result<(), RunError> {
    run_with("nft", &["-f", "-"], script).await.map(drop)
}

/// Hands commands to `tc`, one a line; with `force` it goes on after one that failed.
pub(crate) async fn tc(script: &str, force: bool) -> Result<(), RunError> {
    let arguments: &[&str] = if force { &["-force", "-batch", "-"] } else { &["-batch", "-"] };
    run_with("tc", arguments, script).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_program_says_is_told() {
        assert_eq!(run_with("cat", &[], "a\nb").await.expect("run"), "a\nb");
        let error = run("sh", &["-c", "echo so >&2; exit 3"]).await.expect_err("failed");
        assert_eq!(error.to_string(), "sh -c echo so >&2; exit 3: so");
        let error = run("no-such-program", &[]).await.expect_err("not there");
        assert_eq!(error.to_string(), "starting no-such-program");
    }
}
