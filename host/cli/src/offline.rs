//! What an operator can say of modules also while no host runs: by the host where there is one, else
//! in its database.

use std::path::Path;

use anyhow::{Context, bail};
use privatix_plugin_api::manifest::{NAME_RULE, is_name};
use uuid::Uuid;

use super::output;
use privatix_base::config::{self, Config};
use privatix_core::Inventory;
use privatix_daemon::home;
use privatix_modules::package;
use privatix_operator::client::{Client, ClientError};
use privatix_operator::view::Transfer;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Disable,
    Enable,
    Release,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Release => "release",
        }
    }
}

/// Says something of a module.
pub(super) async fn module(dir: &Path, name: &str, change: Change) -> anyhow::Result<()> {
    check_name(name)?;
    let config = Config::load(dir, config::environment()?)?;
    let path = format!("/v1/modules/{}/{}", output::segment(name), change.word());
    match Client::new(&config.socket).post(&path, &()).await {
        Err(ClientError::NotRunning { .. }) => {}
        outcome => return Ok(outcome?),
    }
    let _lock =
        privatix_daemon::lock(dir).await.context("the host does not answer yet; try again")?;
    if change == Change::Disable {
        let plugins = &config.plugins_dir;
        let packages = package::scan(plugins).with_context(|| plugins.display().to_string())?;
        if !packages.contains_key(name) {
            bail!("no module is called {name:?} in {}", plugins.display());
        }
    }
    let inventory = inventory(&config).await?;
    let outcome = match change {
        Change::Disable => inventory.module_switch(name, true).await,
        Change::Enable => inventory.module_switch(name, false).await,
        Change::Release => inventory.module_release(name).await,
    };
    inventory.close().await;
    Ok(outcome?)
}

/// Gives a product to a module.
pub(super) async fn transfer(dir: &Path, product: Uuid, module: &str) -> anyhow::Result<()> {
    check_name(module)?;
    let config = Config::load(dir, config::environment()?)?;
    let path = format!("/v1/products/{product}/transfer");
    let to = Transfer { module: module.to_owned() };
    match Client::new(&config.socket).post(&path, &to).await {
        Err(ClientError::NotRunning { .. }) => {}
        outcome => return Ok(outcome?),
    }
    let _lock =
        privatix_daemon::lock(dir).await.context("the host does not answer yet; try again")?;
    let inventory = inventory(&config).await?;
    let outcome = inventory.product_transfer(product, module).await;
    inventory.close().await;
    Ok(outcome?)
}

fn check_name(name: &str) -> anyhow::Result<()> {
    if !is_name(name) {
        bail!("{name:?} cannot be a module: its name is {NAME_RULE}");
    }
    Ok(())
}

async fn inventory(config: &Config) -> anyhow::Result<Inventory> {
    let path = &config.database;
    if !path.exists() {
        bail!("there is no database {} yet; start the host once", path.display());
    }
    Ok(Inventory::new(home::open_database(path).await?))
}
