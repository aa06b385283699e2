//! `privatix identity`.

use std::path::Path;

use super::{host, output};
use crate::service::IdentityView;

/// Who this node is, for the other party.
pub(super) async fn run(home: &Path, json: bool) -> anyhow::Result<()> {
    let identity: IdentityView = host(home)?.get("/v1/identity").await?;
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
