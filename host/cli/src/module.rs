//! `privatix module`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use privatix_plugin_api::files;

use super::new_module::{self, NewModule};
use super::{host, offline, output};
use privatix_base::clock;
use privatix_base::clock::UnixSeconds;
use privatix_base::config::{self, Config};
use privatix_core::NewToken;
use privatix_modules::probe::Prober;
use privatix_modules::problem::Problem;
use privatix_modules::registry::{ConnectionView, ModuleView};
use privatix_modules::{cleanup, inspect};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List modules with their states
    List,
    /// Show one module: version, product, library and health
    Show {
        /// The module's name
        name: String,
    },
    /// Explain why a module does not run and how to correct it
    Explain {
        /// The module's name
        name: String,
    },
    /// Create the token with which a standalone module connects, and print it once. The previous
    /// token no longer works
    Token {
        /// The module's name
        name: String,
    },
    /// Stop a module and do not load it again. Works without a running host
    Disable {
        /// The module's name
        name: String,
    },
    /// Load a disabled module again. Works without a running host
    Enable {
        /// The module's name
        name: String,
    },
    /// Load a library again that the host set aside after a crash. Works without a running host
    Release {
        /// The module's name
        name: String,
    },
    /// Remove what a module of a killed host left on this machine: processes, firewall rules,
    /// routes. The host must not run
    Cleanup {
        /// The module's name
        name: String,
    },
    /// Create the crate of a new module, which builds and passes `privatix check`
    New(NewModule),
    /// Seal a library: hosts refuse it if one of its bytes changes later
    Seal {
        /// The library file. The command changes it in place
        library: PathBuf,
    },
}

pub(super) async fn run(command: Command, home: &Path, json: bool) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let modules: Vec<ModuleView> = host(home)?.get("/v1/modules").await?;
            if json { output::json(&modules) } else { list(&modules) }
        }
        Command::Show { name } => {
            let module = get(home, &name).await?;
            if json { output::json(&module) } else { output::text(&show(&module)) }
        }
        Command::Explain { name } => {
            let module = get(home, &name).await?;
            if json { output::json(&module) } else { output::text(&explain(&module)) }
        }
        Command::Token { name } => {
            let path = format!("/v1/modules/{}/token", output::segment(&name));
            let made: NewToken = host(home)?.post(&path, &()).await?;
            if json { output::json(&made) } else { output::text(&made.token) }
        }
        Command::Disable { name } => {
            offline::module(home, &name, offline::Change::Disable).await?;
            output::text(&format!("{name} is off until: privatix module enable {name}"))
        }
        Command::Enable { name } => {
            offline::module(home, &name, offline::Change::Enable).await?;
            output::text(&format!("{name} is on"))
        }
        Command::Release { name } => {
            offline::module(home, &name, offline::Change::Release).await?;
            output::text(&format!("{name} is tried again"))
        }
        Command::Cleanup { name } => clean_up(home, &name, json).await,
        Command::New(request) => new_module::new(&request),
        Command::Seal { library } => seal(&library),
    }
}

async fn get(home: &Path, name: &str) -> anyhow::Result<ModuleView> {
    let name = output::segment(name);
    Ok(host(home)?.get(&format!("/v1/modules/{name}")).await?)
}

fn list(modules: &[ModuleView]) -> anyhow::Result<()> {
    let now = clock::unix_now();
    let rows: Vec<Vec<String>> = modules
        .iter()
        .map(|module| {
            let version = module.version.as_ref().map_or("-", |version| version.version.as_str());
            vec![
                module.name.clone(),
                module.state.as_str().to_owned(),
                output::ago(module.since, now),
                version.to_owned(),
                note(module),
            ]
        })
        .collect();
    output::table(&["NAME", "STATE", "SINCE", "VERSION", "NOTE"], &rows)
}

/// The one thing worth a look.
fn note(module: &ModuleView) -> String {
    if let Some(trouble) = &module.database {
        return trouble.to_string();
    }
    if let Some(problem) = &module.problem {
        return problem.to_string();
    }
    if let Some(candidate) = &module.candidate {
        let problem = candidate.problem.as_ref().map(ToString::to_string).unwrap_or_default();
        return format!("new version {}: {problem}", candidate.state.as_str());
    }
    let well = module.health.as_ref().is_none_or(|health| health == "healthy");
    if let Some(connection) = module.connection.as_ref().filter(|it| well || !it.connected) {
        return words(connection, clock::unix_now());
    }
    module.health.clone().unwrap_or_default()
}

/// Whether a standalone module's program is there, and for how long it has been so.
fn words(connection: &ConnectionView, now: UnixSeconds) -> String {
    let word = if connection.connected { "connected" } else { "not connected" };
    format!("{word} for {}", output::ago(connection.since, now))
}

fn show(module: &ModuleView) -> String {
    let now = clock::unix_now();
    let mut lines = vec![
        format!("name               {}", output::one_line(&module.name)),
        format!(
            "state              {} for {}",
            module.state.as_str(),
            output::ago(module.since, now)
        ),
    ];
    if let Some(version) = &module.version {
        lines.extend([
            format!("version            {}", output::one_line(&version.version)),
            format!("product            {}", version.product_id),
            format!("service API        {}", version.api_version),
        ]);
        if version.standalone {
            lines.push(format!("manifest           {}", version.library));
        } else {
            lines.extend([
                format!("library            {}", version.library),
                format!("sealed             {}", if version.sealed { "yes" } else { "no" }),
            ]);
        }
    }
    if let Some(connection) = &module.connection {
        lines.push(format!("program            {}", words(connection, now)));
    }
    if let Some(health) = &module.health {
        lines.push(format!("health             {}", output::one_line(health)));
    }
    lines.extend([
        format!("generations        {}", module.generations),
        format!("libraries mapped   {}", module.mapped),
        format!("abandoned threads  {}", module.abandoned_threads),
        String::new(),
        explain(module),
    ]);
    lines.join("\n")
}

fn explain(module: &ModuleView) -> String {
    let name = output::one_line(&module.name);
    let mut parts = vec![match &module.problem {
        Some(problem) => {
            format!("{name} is {}.\n{}", module.state.as_str(), sentences(problem))
        }
        None => format!("{name} is {}.", module.state.as_str()),
    }];
    if let Some(candidate) = &module.candidate {
        let version =
            candidate.version.as_ref().map(|v| format!(" ({})", output::one_line(&v.version)));
        let version = version.unwrap_or_default();
        let problem = candidate.problem.as_ref().map(sentences).unwrap_or_default();
        parts.push(format!("A new version{version} is {}.\n{problem}", candidate.state.as_str()));
    }
    if let Some(trouble) = &module.database {
        parts.push(format!(
            "The host: {trouble}. {} writes failed since {} ago.",
            trouble.failures,
            output::ago(trouble.since, clock::unix_now())
        ));
        return parts.join("\n\n");
    }
    if let Some(health) = module.health.as_ref().filter(|health| *health != "healthy") {
        parts.push(format!("Health: {}", output::one_line(health)));
    }
    parts.join("\n\n")
}

fn sentences(problem: &Problem) -> String {
    let Problem { code, found, required, mend } = problem;
    let [found, required, mend] = [found, required, mend].map(|text| output::one_line(text));
    format!("  code      {code}\n  found     {found}\n  required  {required}\n  to mend   {mend}")
}

async fn clean_up(home: &Path, name: &str, json: bool) -> anyhow::Result<()> {
    privatix_daemon::home::check(home)?;
    let config = Config::load(home, config::environment()?)?;
    let _lock =
        privatix_daemon::lock(home).await.context("the host does this itself when it starts")?;
    let done = cleanup::run(&config, name, &Prober::this_binary()).await?;
    match (json, done.as_slice()) {
        (true, _) => output::json(&done),
        (false, []) => output::text("there was nothing to clean up"),
        (false, done) => output::block(done),
    }
}

/// Replaces the library by a sealed copy of itself, whole or not at all.
fn seal(library: &Path) -> anyhow::Result<()> {
    let shown = library.display();
    let mut bytes = fs::read(library).with_context(|| format!("reading {shown}"))?;
    let permissions =
        fs::metadata(library).with_context(|| format!("reading {shown}"))?.permissions();
    inspect::seal(&mut bytes)?;
    files::replace_with(library, &bytes, permissions)
        .with_context(|| format!("replacing {shown}"))?;
    output::text(&format!("sealed {shown}"))
}
