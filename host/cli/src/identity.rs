//! `privatix identity`.

use std::path::Path;

use super::{host, output};
use privatix_base::config::{self, Config};
use privatix_core::IdentityView;
use privatix_exchange::identity;
use privatix_operator::client::ClientError;

/// What the other party needs to know of this host.
pub(super) async fn run(home: &Path, json: bool) -> anyhow::Result<()> {
    let identity = match host(home)?.get("/v1/identity").await {
        Err(ClientError::NotRunning { .. }) => at_rest(home)?,
        answered => answered?,
    };
    if json {
        return output::json(&identity);
    }
    let mut lines = vec![
        format!("role         {}", identity.role),
        format!("signing key  {}", identity.signing_key),
        format!("fingerprint  {}", identity.fingerprint),
    ];
    lines.extend(identity.exchange.map(|url| format!("exchange     {url}")));
    output::text(&lines.join("\n"))
}

/// Read from the files of a host that does not run. Its address is known only while it listens.
fn at_rest(home: &Path) -> anyhow::Result<IdentityView> {
    let config = Config::load(home, config::environment()?)?;
    let key = identity::read(&home.join(identity::FILE_NAME))?.public().signing;
    Ok(IdentityView {
        role: config.role,
        signing_key: key.to_string(),
        fingerprint: key.fingerprint(),
        exchange: None,
    })
}
