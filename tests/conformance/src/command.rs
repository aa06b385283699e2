//! `privatix check`, and the same for the test of a module's own crate.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use privatix_cli::Extra;

use crate::case::{Case, Set};
use crate::core::Bench;
use crate::report::{self, Again, Summary};
use crate::runner::Runner;
use crate::subject::{Places, Program, Subject};
use crate::{cases, child, interrupt};

/// The subcommands that a binary has to have for the kit: `check`, and the internal one by which it
/// starts itself again for each case.
pub const EXTRAS: [Extra; 2] =
    [Extra { command: check_command, run: check }, Extra { command: case_command, run: one_case }];

// Not a comment for rustdoc: clap would show it as the command's description.
#[derive(Debug, Args)]
struct Options {
    /// The library. Its templates are beside it or in its crate
    #[arg(value_name = "LIBRARY", required_unless_present_any = ["list", "standalone"])]
    library: Option<PathBuf>,
    /// Check a standalone module: its NAME.module.json here, its program after `--`
    #[arg(long, value_name = "MANIFEST", conflicts_with = "library", requires = "command")]
    standalone: Option<PathBuf>,
    /// The command that starts a standalone module's program. {http}, {ws} and {data} become the host's
    /// addresses and a directory for its data; its token is in PRIVATIX_TOKEN
    #[arg(last = true, value_name = "COMMAND", num_args = 0..)]
    command: Vec<String>,
    /// Run the cases that take minutes, too
    #[arg(long)]
    thorough: bool,
    /// Run only these groups or cases, and what they need; may be given several times
    #[arg(long, value_name = "GROUP|CASE")]
    only: Vec<String>,
    /// Leave out these groups or cases, and what needs them; may be given several times
    #[arg(long, value_name = "GROUP|CASE")]
    skip: Vec<String>,
    /// List the cases with their rules, and run none
    #[arg(long)]
    list: bool,
    /// Seed of the random choices [default: a new one for each run, which is printed]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The directory of NAME.access.json and NAME.offering.json
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
    /// The file with the module's settings, instead of NAME.check.toml
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Write a report in JUnit format
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// The number of cases that run at once [default: the number of processors]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
}

fn check_command() -> clap::Command {
    let command = clap::Command::new("check")
        .about("Check whether a module will work in every host, and explain what fails");
    Options::augment_args(command)
}

fn case_command() -> clap::Command {
    let place = |name| Arg::new(name).value_parser(clap::value_parser!(PathBuf)).required(true);
    clap::Command::new(child::SUBCOMMAND)
        .hide(true)
        .arg(place("run"))
        .arg(Arg::new("case").required(true))
        .arg(place("directory"))
}

fn check(matches: &ArgMatches) -> ExitCode {
    let options = match Options::from_arg_matches(matches) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let json = matches.try_get_one::<bool>("json").ok().flatten().copied().unwrap_or(false);
    if options.standalone.is_none() && !options.command.is_empty() {
        return conclude(Err(CheckError::NoManifest));
    }
    conclude(perform(&options, json, &cases::all(), "privatix check"))
}

fn one_case(matches: &ArgMatches) -> ExitCode {
    run_case(matches, &cases::all())
}

fn run_case(matches: &ArgMatches, cases: &[Case]) -> ExitCode {
    let place = |name: &str| matches.get_one::<PathBuf>(name);
    let id = matches.get_one::<String>("case");
    match (place("run"), id, place("directory")) {
        (Some(run), Some(id), Some(directory)) => child::run(cases, run, id, directory),
        _ => ExitCode::FAILURE,
    }
}

/// The test of a module's crate, in a target with `harness = false`: builds the library, and checks
/// it with the kit's cases and with some of the crate's own. `crate_dir` is
/// `env!("CARGO_MANIFEST_DIR")`. Takes the options of `privatix check`.
pub fn test(crate_dir: &str, own: Vec<Case>) -> ExitCode {
    let mut all = cases::all();
    all.extend(own);
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    // What `cargo test` hands on to every test after `--` is nobody's program.
    let command = clap::Command::new("conformance").arg(json);
    let command = Options::augment_args(command)
        .mut_arg("library", |library| library.required(false))
        .subcommand(case_command())
        .args_conflicts_with_subcommands(true);
    let matches = command.get_matches();
    if let Some((_, matches)) = matches.subcommand() {
        return run_case(matches, &all);
    }
    let mut options = match Options::from_arg_matches(&matches) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let json = matches.get_flag("json");
    if options.library.is_none() && options.standalone.is_none() && !options.list {
        match build(Path::new(crate_dir)) {
            Ok(library) => options.library = Some(library),
            Err(error) => return conclude(Err(error)),
        }
    }
    options.templates.get_or_insert_with(|| crate_dir.into());
    let settings = options.library.as_deref().and_then(Path::file_stem).map(|stem| {
        let stem = stem.to_string_lossy();
        Path::new(crate_dir).join(format!("{}.check.toml", stem.trim_start_matches("lib")))
    });
    if options.settings.is_none() {
        options.settings = settings.filter(|path| path.exists());
    }
    conclude(perform(&options, json, &all, "cargo test --test conformance --"))
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Subject(#[from] crate::subject::SubjectError),
    #[error("no case and no group is called {0:?}; `--list` names them all")]
    UnknownCase(String),
    #[error("a program is checked with --standalone NAME.module.json before `-- COMMAND`")]
    NoManifest,
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("writing a report")]
    Report(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("building the library: {0}")]
    Build(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> CheckError {
    |source| CheckError::Io { what: what.into(), source }
}

/// 0 if nothing required failed; 2 for a wrong command line; 1 otherwise, and where nothing could be
/// checked.
fn conclude(outcome: Result<bool, CheckError>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "privatix: {}", crate::chain(&error));
            match error {
                CheckError::UnknownCase(_) | CheckError::NoManifest => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Returns whether the module conforms.
fn perform(options: &Options, json: bool, all: &[Case], program: &str) -> Result<bool, CheckError> {
    let again = Again::of(program, options);
    let mut chosen = choose(all, options)?;
    if options.standalone.is_some() {
        // What says nothing of a program is skipped by name, and in nobody's way.
        for case in &mut chosen {
            case.after.retain(|id| child::says_nothing_of_programs(id).is_none());
        }
    }
    let mut out = io::stdout();
    if options.list {
        let text = if json { report::list_json(&chosen) } else { report::list(&chosen) };
        writeln!(out, "{text}").map_err(io_error("writing the list"))?;
        return Ok(true);
    }
    // clap has seen to it.
    let library = options.standalone.as_ref().or(options.library.as_ref());
    let library = library.cloned().unwrap_or_default();
    let standalone = match options.standalone {
        Some(_) => Some(Program {
            command: options.command.clone(),
            directory: std::env::current_dir().map_err(io_error("where this is"))?,
        }),
        None => None,
    };
    let seed = options.seed.unwrap_or_else(some_number);
    let directory = tempfile::Builder::new().prefix("privatix-check-").tempdir();
    let directory = directory.map_err(io_error("making a directory to work in"))?;
    interrupt::clean_up_after(directory.path().to_owned())
        .map_err(io_error("waiting for interruptions"))?;
    let places =
        Places { templates: options.templates.clone(), settings: options.settings.clone() };
    let subject = Subject::stage(&library, &places, directory.path(), seed, standalone)?;
    let note = serde_json::to_vec(&subject).map_err(|error| CheckError::Report(error.into()))?;
    std::fs::write(directory.path().join(child::SUBJECT), note)
        .map_err(io_error("noting what is checked"))?;
    let jobs = options.jobs.unwrap_or_else(processors);
    let runner = Runner {
        // Also when its file has been replaced since.
        binary: "/proc/self/exe".into(),
        directory: directory.path(),
        bench: Bench::new(subject.clone(), directory.path()),
        jobs: jobs.min(subject.settings.jobs.map_or(usize::MAX, NonZeroUsize::get)),
    };
    // Before the work, so that none of it is lost for want of a place.
    let junit = match &options.junit {
        Some(path) => {
            let what = format!("the report {}", path.display());
            Some(std::fs::File::create(path).map_err(io_error(what))?)
        }
        None => None,
    };
    let begun = Instant::now();
    let progress = report::Progress::new(chosen.len(), json, io::stderr().is_terminal());
    let ran = runner.run(&chosen, |one| progress.tell(one)).map_err(io_error("running cases"))?;
    interrupt::give_way();
    progress.end();
    let summary = Summary {
        name: &subject.name,
        library: &library,
        again,
        seed,
        took: begun.elapsed(),
        ran: &ran,
    };
    let text = if json { summary.json() } else { summary.text() };
    writeln!(out, "{text}").map_err(io_error("writing the summary"))?;
    if let Some(file) = junit {
        summary.junit(file).map_err(|error| CheckError::Report(error.into()))?;
    }
    Ok(summary.conforms())
}

impl Again {
    fn of(program: &str, options: &Options) -> Self {
        let mut before = program.to_owned();
        let paths = [
            ("", &options.library),
            (" --standalone", &options.standalone),
            (" --templates", &options.templates),
            (" --settings", &options.settings),
        ];
        for (option, path) in paths {
            if let Some(path) = path {
                before.push_str(&format!("{option} {}", path.display()));
            }
        }
        let after = match options.standalone {
            Some(_) => format!(" -- {}", options.command.join(" ")),
            None => String::new(),
        };
        Self { before, after }
    }
}

/// The cases that are asked for, and those that they need, in the order of the catalogue.
fn choose(all: &[Case], options: &Options) -> Result<Vec<Case>, CheckError> {
    for word in options.only.iter().chain(&options.skip) {
        if !all.iter().any(|case| case.id == word || case.group() == word) {
            return Err(CheckError::UnknownCase(word.clone()));
        }
    }
    let wanted = |case: &Case| {
        if options.only.is_empty() {
            return options.thorough || options.list || case.set == Set::Required;
        }
        // By its own name also without --thorough.
        let group = options.only.iter().any(|word| word == case.group());
        options.only.iter().any(|word| word == case.id)
            || (group && (options.thorough || case.set == Set::Required))
    };
    let mut ids: Vec<&str> = all.iter().filter(|case| wanted(case)).map(|case| case.id).collect();
    let mut at = 0;
    while at < ids.len() && !options.list {
        if let Some(case) = all.iter().find(|case| case.id == ids[at]) {
            for id in &case.after {
                if !ids.contains(id) {
                    ids.push(id);
                }
            }
        }
        at += 1;
    }
    let chosen = all.iter().filter(|case| ids.contains(&case.id)).cloned();
    // What is left out stays in the report, so that it says what was not looked at.
    let left_out = |case: Case| {
        let is = options.skip.iter().any(|word| word == case.id || word == case.group());
        if is { case.left_out() } else { case }
    };
    Ok(chosen.map(left_out).collect())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// Another one each time; short enough to be typed.
fn some_number() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) % 1_000_000
}

/// The shared library of a crate, by cargo's own account of what it has built.
fn build(crate_dir: &Path) -> Result<PathBuf, CheckError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate_dir).args(["build", "--lib", "--message-format=json"]);
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(io_error("running cargo"))?;
    if !output.status.success() {
        return Err(CheckError::Build(format!("cargo ended with {}", output.status)));
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut files = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let own = message.get("manifest_path")?.as_str()?;
        if Path::new(own).parent()? != crate_dir {
            return None;
        }
        let files = message.get("filenames")?.as_array()?.clone();
        files
            .iter()
            .filter_map(|file| file.as_str())
            .find(|file| file.ends_with(".so"))
            .map(PathBuf::from)
    });
    let none = || CheckError::Build("it has no cdylib; say crate-type = [\"cdylib\"]".into());
    files.next_back().ok_or_else(none)
}
